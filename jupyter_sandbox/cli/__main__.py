"""`python -m jupyter_sandbox.cli …`, the same as `jupyter sandbox …`."""

from .main import main

raise SystemExit(main())
