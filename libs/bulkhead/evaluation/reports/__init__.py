"""Reports of an evaluation: for people (HTML), programs (JSON), builds (JUnit), and the viewer of inspect-ai."""
