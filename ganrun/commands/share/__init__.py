"""Make a folder of a run that others can load, as on the Hugging Face Hub, and upload it: push=<owner>/<name>.

  ganrun share from=<run> out=shared license=mit        weights, config, a model card with samples and scores
  ganrun share from=<run> out=shared license=mit push=<owner>/<name> private=true
  ganrun sample from=hf://<owner>/<name>                what others type then

Paths of this machine are left out of all files. The card shows the run's newest samples; those of a translator include
the images that it translates. The token for an upload is the one of `hf auth login`, or HF_TOKEN. The
last line on stdout is the folder, or the address after an upload, with its commit.
"""

from ganrun.config.hydra_main import composed


def run(args: list[str]) -> int:
    """Returns the exit code. The last line on stdout is the folder, or the pinned address of what was uploaded."""
    cfg = composed("share", args)
    if cfg is None:
        return 0
    from ganrun.commands.share.request import check_share

    request = check_share(cfg)
    from ganrun.commands.share.folder import write

    write(request)
    print(request.out, flush=True)
    if request.push:
        from ganrun.commands.share.upload import upload

        print(upload(request), flush=True)
    return 0
