"""`python -m airflow_provider_geminibatch.cli`: the command line where the script is not on the PATH."""

import sys

from airflow_provider_geminibatch.cli.main import main

sys.exit(main())
