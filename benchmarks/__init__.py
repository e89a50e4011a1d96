"""Side-by-side measurements: what a sandbox costs beside what it is compared with, as ratios of one run."""
