#!/usr/bin/env python3
"""Optimises preferences that a job file names, with TRL and PEFT: dpo.py JOB.json [--resume] [--processes N]"""

import sys

from gap_driver.run import main

if __name__ == "__main__":
    sys.exit(main("dpo"))
