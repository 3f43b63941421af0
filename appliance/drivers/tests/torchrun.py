"""torchrun, for a torch that was built without libuv (as Debian's is) and whose stores ask for it all the same.

torchrun.py OPTIONS torchrun.py DRIVER JOB.json: the second name is what each process is started with.
"""

import os
import runpy
import sys
from functools import partial
from pathlib import Path

import torch.distributed as distributed
from torch.distributed.elastic.rendezvous import c10d_rendezvous_backend

store = partial(distributed.TCPStore, use_libuv=False)
for module in (distributed, sys.modules["torch.distributed.rendezvous"], c10d_rendezvous_backend):
    module.TCPStore = store

if __name__ == "__main__":
    if "RANK" in os.environ:
        del sys.argv[0]
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        from torch.distributed.run import main

        sys.exit(main())
