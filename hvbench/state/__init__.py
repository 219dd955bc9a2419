"""The records that kernel and policies share: declared once, compiled and interpreted."""
