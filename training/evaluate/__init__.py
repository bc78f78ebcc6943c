"""The `evaluate` command: every figure of a run or a checkpoint on labelled faces, as files."""
