"""Names and bounds of the files of rules. Apart from the parser, which not every reader of a folder has."""

MESH_POLICY = "default"
SUFFIX = ".cedar"
MAX_FILE_BYTES = 256 * 1024
MAX_FILES = 4_096
