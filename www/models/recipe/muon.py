"""The optimiser: Muon (orthogonalised momentum, Jordan 2024) for the matrices of the blocks, AdamW for everything else."""

import torch

ADAM_RATE, MUON_RATE = 3e-3, 0.02
MOMENTUM, DECAY = 0.95, 0.05


def orthogonalised(gradient):
    """Nearly the nearest orthogonal matrix, by five Newton-Schulz steps in bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = (gradient / (gradient.norm() + 1e-7)).bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.t() if tall else x
    for _ in range(5):
        product = x @ x.t()
        x = a * x + (b * product + c * product @ product) @ x
    return (x.t() if tall else x).float()


def update(gradient):
    """Query, key and value of a fused matrix are orthogonalised each on its own."""
    rows, columns = gradient.shape
    if rows == 3 * columns:
        return torch.cat([orthogonalised(part) for part in gradient.split(columns)])
    return orthogonalised(gradient) * max(1.0, rows / columns) ** 0.5


class Optimiser:
    def __init__(self, model):
        self.matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("h.")]
        self.rest = [p for p in model.parameters() if not any(p is matrix for matrix in self.matrices)]
        self.momenta = [torch.zeros_like(matrix) for matrix in self.matrices]
        self.adam = torch.optim.AdamW(self.rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)

    @torch.no_grad()
    def step(self, rate, crew):
        """One step at `rate` times the full rates; the crew shares the orthogonalising."""
        torch.nn.utils.clip_grad_norm_(self.rest, 1.0)
        for group in self.adam.param_groups:
            group["lr"] = ADAM_RATE * rate
        self.adam.step()
        for matrix, momentum in zip(self.matrices, self.momenta):
            momentum.mul_(MOMENTUM).add_(matrix.grad)
            matrix.grad.add_(momentum, alpha=MOMENTUM)
        moves = crew.divided(update, [matrix.grad for matrix in self.matrices])
        for matrix, move in zip(self.matrices, moves):
            matrix.mul_(1 - rate * MUON_RATE * DECAY).add_(move, alpha=-rate * MUON_RATE)

    def state(self):
        return {"adam": self.adam.state_dict(), "momenta": self.momenta}

    def load(self, state):
        self.adam.load_state_dict(state["adam"])
        self.momenta = state["momenta"]
