"""Jobs that a command waits for, with a bar."""

from oddity_client import Client, Job

from app.cli.console import steps_progress


def ended(client: Client, job: Job, title: str) -> Job:
    """The job when it has ended, well or not; a bar shows how far it is."""
    with steps_progress() as progress:
        bar = progress.add_task(title, total=None)
        for current in client.follow(job):
            stage = f"{title}: {current.progress.stage}" if current.progress.stage else title
            progress.update(bar, description=stage, completed=current.progress.done, total=current.progress.total)
            job = current
    return job
