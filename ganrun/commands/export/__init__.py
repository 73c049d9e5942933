"""Write a generator or translator as an ONNX or pt2 file, which samples without ganrun.

  ganrun export from=<run>                                 generator.onnx
  ganrun export from=<run>/best.safetensors out=best.pt2   torch.export's format; also format=pt2
  ganrun export from=<run> direction=b2a                   of CycleGAN, the other way

Inputs are z (batch, z_dim), label if it is conditional, and psi (truncation in w) if it is style-based; of translators,
images of any size that the network takes. The output is what load_generator gives: floats in [-1, 1]. How noise is
drawn, the classes and the version are in the file, as JSON. Before it is written, the file is compared with the
original.
"""

from ganrun.config.hydra_main import composed


def run(args: list[str]) -> int:
    """Returns the exit code. The last line on stdout is the path that was written."""
    cfg = composed("export", args)
    if cfg is None:
        return 0
    from ganrun.commands.export.request import check_export

    request = check_export(cfg)
    from ganrun.commands.export.exporting import export

    print(export(request))
    print(request.out, flush=True)
    return 0
