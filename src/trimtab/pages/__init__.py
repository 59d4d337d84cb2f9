"""Pages that people keep: one self-contained HTML file each, with one look. What is drawn is the caller's."""
