"""Regularisers beyond the gradient penalties: of logits, of changed copies, of the past."""
