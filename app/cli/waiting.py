"""Jobs that a command submits and may wait for, with a bar."""

from oddity_client import Client, Job, JobFailed

from app.cli.console import messages, print_json, steps_progress


def ended(client: Client, job: Job, title: str) -> Job:
    """The job when it has ended, well or not; a bar shows how far it is."""
    with steps_progress() as progress:
        bar = progress.add_task(title, total=None)
        for current in client.follow(job):
            stage = f"{title}: {current.progress.stage}" if current.progress.stage else title
            progress.update(bar, description=stage, completed=current.progress.done, total=current.progress.total)
            job = current
    return job


def finished(client: Client, job: Job, title: str, *, wait: bool, as_json: bool) -> Job:
    """The job as far as it was waited for, printed where JSON is wanted. Raises JobFailed."""
    if wait:
        job = ended(client, job, title)
    if as_json:
        print_json(job)
    if job.state in ("failed", "cancelled"):
        raise JobFailed(job)
    if not as_json and job.result is None:
        say(f"{title}: {job.state} as job {job.id}; `oddity jobs wait {job.id}` waits for it.")
    return job


def say(text: str) -> None:
    """A line of text for people."""
    messages().print(text, highlight=False, markup=False, soft_wrap=True)
