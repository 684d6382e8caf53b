"""Small untrained nets for the tests of what may move, and what is looked at in them."""

import copy

import timm
import torch
import transformers
from torch import nn

from efface import Records
from efface.task import outputs
from efface.trainable import TRAINABLE

LESS = [name for name in TRAINABLE if name != "all"]


def net():
    """Linear layers around a norm, drawn without moving the global random state."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.LayerNorm(16), nn.ReLU(),
            nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10),
        ).eval()  # fmt: skip


def vit(*, channels=1, labels=10):
    """A ViT of transformers, tiny and untrained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.ViTForImageClassification(
            transformers.ViTConfig(
                image_size=8, patch_size=4, num_channels=channels, hidden_size=16,
                num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=labels,
            )
        ).eval()  # fmt: skip


def timm_vit():
    """A ViT of timm, tiny and untrained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(
            "vit_tiny_patch16_224", img_size=8, patch_size=4, in_chans=1, embed_dim=16, depth=2,
            num_heads=2, num_classes=10,
        ).eval()  # fmt: skip


def line(weight, bias=0.0):
    """A linear model of two features whose logits are (0, weight · x + bias)."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], weight]))
        model.bias.copy_(torch.tensor([0.0, bias]))
    return model.eval()


class _Double(nn.Module):
    def forward(self, x):
        return 2 * x


def twice():
    """A model of digits whose outputs are not its last layer's."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), _Double())


def known(model, digits, count=60):
    """Records with the labels that the model itself gives, so that nothing refuses it."""
    some = digits.take(range(count))
    with torch.no_grad():
        y = outputs(model, some).argmax(1)
    return Records(some.x, y, some.ids, some.low, some.high)


def trainable_names(model):
    """The weights that may move."""
    return [name for name, weight in model.named_parameters() if weight.requires_grad]


class Given:
    """A model as it was: weights, buffers, flags, hooks, modes, gradients."""

    def __init__(self, model):
        self.model, self.was = model, self.seen(model)
        self.state = copy.deepcopy(model.state_dict())

    @staticmethod
    def seen(model):
        """What a method could have changed besides numbers."""
        return (
            [(n, id(w), w.requires_grad, w.grad is None) for n, w in model.named_parameters()],
            [(n, type(m), m.training) for n, m in model.named_modules()],
            [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        )

    def is_untouched(self):
        """Fails when anything is not as it was."""
        assert self.seen(self.model) == self.was
        assert all(self.state[n].equal(t) for n, t in self.model.state_dict().items())


def moved(old, new):
    """Names of the tensors that are not bit-equal."""
    state = new.state_dict()
    assert list(state) == list(old.state_dict())
    return {name for name, tensor in old.state_dict().items() if not tensor.equal(state[name])}
