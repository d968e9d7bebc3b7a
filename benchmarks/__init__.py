"""What the service is measured with; results are written as JSON and Markdown, never by hand."""
