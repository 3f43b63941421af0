#!/usr/bin/env python3
"""Fine-tunes by supervision what a job file names, with TRL and PEFT: sft.py JOB.json [--resume] [--processes N]"""

import sys

from gap_driver.run import main

if __name__ == "__main__":
    sys.exit(main("supervised"))
