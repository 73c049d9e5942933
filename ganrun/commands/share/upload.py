"""Puts a shared folder into a repository on the Hugging Face Hub."""

from ganrun.commands.share.request import Request
from ganrun.errors import Failure, UserError
from ganrun.files.hub import SCHEME, TOKEN, quietly, told


def upload(request: Request) -> str:
    """Makes the repository, and a commit with the folder's files; returns the commit's address.

    Raises UserError where there is no token or no right, and for a name that is taken; Failure without a network.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    what = f"push={request.push}"
    if get_token() is None:
        raise UserError(f"{what}: there is no token; {TOKEN}; the folder {request.out} is complete")
    hub, kept = HfApi(library_name="ganrun"), f"the folder {request.out} is complete"
    with told(what), quietly():
        try:
            hub.create_repo(request.push, private=request.private, exist_ok=request.overwrite)
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code != 409:
                raise
            advice = "overwrite=true adds a commit to it, or name another"
            raise UserError(f"{what}: there is such a repository; {advice}; {kept}") from error
        if request.branch:
            hub.create_branch(request.push, branch=request.branch, exist_ok=True)
        done = hub.upload_folder(
            repo_id=request.push, folder_path=request.out, revision=request.branch,
            commit_message="Upload with ganrun",
        )  # fmt: skip
    if not done.oid:
        raise Failure(f"{what}: the hub named no commit; {kept}")
    return f"{SCHEME}{request.push}@{done.oid}"
