"""``python -m vidseg``."""

import importlib
import sys

sys.exit(importlib.import_module("vidseg_pipelines.cli").main())  # by name: the core imports no pipeline
