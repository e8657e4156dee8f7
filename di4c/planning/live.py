"""How much memory tensors take while code runs, on the meta device too, where nothing is allocated."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages made inside the context and still referenced; those of `module` were there before.

    now: at this moment. peak: the largest `now`. peak_without_gradients: the largest `now` less the gradients that the
    module's parameters have accumulated.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.now = self.peak = self.peak_without_gradients = 0
        self._gradients = 0
        self._before = [tensor.untyped_storage() for tensor in (*module.parameters(), *module.buffers())]
        self._known = {storage._cdata for storage in self._before}
        trained = [p for p in module.parameters() if p.requires_grad]
        self._hooks = [p.register_post_accumulate_grad_hook(self._accumulated) for p in trained]

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def __exit__(self, *details: Any) -> None:
        super().__exit__(*details)
        for hook in self._hooks:
            hook.remove()

    def restart(self) -> None:
        """Forgets the peaks so far."""
        self.peak, self.peak_without_gradients = self.now, self.now - self._gradients

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        weakref.finalize(storage, self._freed, key, size)
        self.now += size
        self.peak = max(self.peak, self.now)
        self.peak_without_gradients = max(self.peak_without_gradients, self.now - self._gradients)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def _accumulated(self, parameter: nn.Parameter) -> None:
        if parameter.grad is not None:
            self._gradients += parameter.grad.untyped_storage().nbytes()
