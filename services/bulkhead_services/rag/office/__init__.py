"""DOCX and XLSX to text with structure, in the process of the parser alone."""
