"""Pages that are made while the documents are built: the REST reference, and a page for each method."""

import re
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from app.main import create_app
from app.rest_page import rest_page
from app.settings import Settings

METHODS = Path(__file__).parents[1] / "models" / "methods"


def on_files(files: Files, config: Any) -> Files:
    """The files of the documents, with those that are made here."""
    with tempfile.TemporaryDirectory() as folder:
        document = create_app(Settings(data=Path(folder), weights="stand-in")).openapi()
    files.append(File.generated(config, "rest.md", content=rest_page(document)))
    for name, path in ((one.parent.name, one) for one in sorted(METHODS.glob("*/README.md"))):
        text = re.sub(r"\]\(\.\./(\w+)/README\.md", r"](\1.md", path.read_text(encoding="utf-8"))
        text = text.replace("](../../../docs/", "](../")
        files.append(File.generated(config, f"methods/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to the methods' folders lead to their pages."""
    up = "../" * page.file.src_uri.count("/")
    return re.sub(r"\]\((?:\.\./)+models/methods/(\w+)/README\.md", rf"]({up}methods/\1.md", markdown)
