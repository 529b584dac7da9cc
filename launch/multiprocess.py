"""An experiment in many processes, on one host or several: --help shows how. See lmjax/run/processes/supervisor.py."""

import sys

from lmjax.run.processes.supervisor import main

if __name__ == "__main__":
    sys.exit(main())
