"""The report's text, tables and figures."""
