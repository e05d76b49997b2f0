"""The commands of `headrace`, a file each; `workers.cli` loads only the one that is called."""
