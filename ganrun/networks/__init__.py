"""Networks only map tensors: generator(z, label=None) -> x, discriminator(x, condition=None) -> Verdict."""
