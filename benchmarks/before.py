"""What every benchmark wants before anything else is imported: this checkout's packages, one
thread for the linear algebra (threads of our own are what is measured), and quiet libraries."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GLOG_minloglevel", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
