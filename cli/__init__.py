"""The `keyturn` command: one file a noun. Imported lazily, so that `--help` is quick."""
