"""`python -m app.cli` is `oddity`."""

from app.cli.main import main

main()
