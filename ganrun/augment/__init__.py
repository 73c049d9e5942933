"""Changes to images, real and fake alike, on their way into the discriminator."""
