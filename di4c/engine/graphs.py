"""CUDA graphs in place of network passes without gradient whose shapes recur: the host starts one graph, not every kernel of the pass.

The first pass of a kind runs as it is, the second is recorded, and from then on the record is replayed on copies of the inputs.
"""

import functools
import threading
import warnings
import weakref
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from di4c.contracts import Backbone, Calls, Context

MOST_TOKENS = 8192
"""Tokens, on average over the blocks, of a pass that is recorded. With more the device is the bound, and a record holds more memory: 12
blocks of width 768 in bf16 take 5.7 ms, as a graph 1.3, for 1024 tokens; 8.9 and 8.3 for 16384 (H200, tools/results/gpu-notes.json)."""
MOST_GRAPHS = 8
"""Graphs of a backbone; passes of further kinds run as they are."""
MOST_MOVES, PASSES_A_MOVE = 4, 100
"""A backbone whose weights have moved more often than this, and within fewer passes a move, is left alone."""

Arguments = tuple[Tensor, Tensor, Tensor | None, Context | None]


class CudaRecorder:
    """Records passes on the device. Those of one recorder share memory: the outputs of one are copied before another is replayed."""

    kind = "cuda"

    def __init__(self) -> None:
        self.pool: tuple[int, int] | None = None

    def takes(self, device: torch.device) -> bool:
        """Whether passes on the device may be replayed now: on its default stream, which is never itself recorded, so that they follow
        one another."""
        return device.type == self.kind and torch.cuda.current_stream(device) == torch.cuda.default_stream(device)

    def record(self, function: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
        """Runs the function once, as torch requires, and records it; what is returned gives the same tensors, filled anew.

        Other threads go on meanwhile. Raises RuntimeError where something in it cannot be recorded.
        """
        graph, side = torch.cuda.CUDAGraph(), _side_stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        # The end of this context restores the stream; that of torch.cuda.graph does not where recording fails.
        with torch.cuda.stream(side):
            function()
            with torch.cuda.graph(graph, pool=self.pool, stream=side, capture_error_mode="thread_local"):
                outputs = function()
        torch.cuda.current_stream(device).wait_stream(side)
        self.pool = graph.pool()

        def replayed() -> Any:
            graph.replay()
            return outputs

        return replayed


def replay_backbones(*modules: nn.Module, recorder: Callable[[], Any] = CudaRecorder) -> int:
    """Lets graphs stand for passes without gradient of every backbone in the modules that allows it; says how many there are.

    It is done to the instances: parameters keep their names, and copies and pickles of a backbone know nothing of it. A graph is of
    one kind of input (shapes, dtypes, what else the context says) and goes with the backbone. A pass runs as it is on a CPU, on another
    stream than the default one, with gradient, under autocast or torch.compile, with active dropout, with hooks on modules inside, and
    with more than MOST_TOKENS tokens a block. Recording one waits for the device.
    """
    found = {id(part): part for module in modules for part in module.modules() if isinstance(part, Backbone)}
    allowed = [backbone for backbone in found.values() if backbone.replayable]
    for backbone in allowed:
        backbone.__dict__["forward"] = Replays(backbone, recorder)
    return len(allowed)


def held_bytes() -> int:
    """Bytes on the devices that graphs hold for their passes, which torch.cuda.memory_allocated does not count between replays."""
    segments = torch.cuda.memory_snapshot()
    return sum(s["total_size"] - s["allocated_size"] for s in segments if tuple(s["segment_pool_id"]) != (0, 0))


class Replays:
    """A backbone's forward: the outputs of its class's, by a graph where one stands for the pass. Does not keep the backbone alive."""

    def __init__(self, backbone: Backbone, recorder: Callable[[], Any]):
        self.backbone, self.new_recorder = weakref.ref(backbone), recorder
        self.recorder, self.lock = recorder(), threading.Lock()
        self.graphs: dict[Any, Graph] = {}
        self.seen: set[Any] = set()
        self.addresses: list[int] | None = None
        self.parts: list[nn.Module] = []
        self.calls = Calls([])
        self.tensors: list[dict[str, Tensor | None]] = []
        self.children: list[dict[str, nn.Module | None]] = []
        self.dropouts: list[nn.Module] = []
        self.passes = self.moves = 0
        self.given_up = False

    def __call__(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None, context: Context | None = None) -> Any:
        backbone = self.backbone()
        eager = functools.partial(type(backbone).forward, backbone)
        arguments = (x_t, t, cond, _without_modulation(context))
        with self.lock:
            graph = self._graph(backbone, eager, arguments)
            if graph is not None:
                return graph(arguments)
        return eager(x_t, t, cond, context)

    def _graph(self, backbone: Backbone, eager: Callable, arguments: Arguments) -> "Graph | None":
        """The graph of the pass, which is recorded if it is time; None where the pass is to run as it is."""
        if self.given_up or not backbone.replayable or not self._recordable(backbone, arguments):
            return None
        self._follow(backbone)
        if self.given_up or self.calls or any(dropout.training and dropout.p > 0 for dropout in self.dropouts):
            return None
        key = (_mapped(arguments, _shape), backbone.training)
        if key in self.graphs or len(self.graphs) == MOST_GRAPHS:
            return self.graphs.get(key)
        if key not in self.seen:
            self.seen.add(key)
            return None
        try:
            self.graphs[key] = Graph(eager, arguments, self.recorder)
        except Exception as error:
            self.given_up = True
            self._forget(backbone)
            warnings.warn(
                f"{type(backbone).__name__}: no CUDA graph, all its passes run as they are: {error}", stacklevel=4
            )
        return self.graphs.get(key)

    def _recordable(self, backbone: Backbone, arguments: Arguments) -> bool:
        x_t, _, _, context = arguments
        if torch.is_grad_enabled() or torch.is_autocast_enabled(self.recorder.kind) or torch.compiler.is_compiling():
            return False
        if _tokens(backbone, x_t, context) > MOST_TOKENS or (context is not None and context.modulation is not None):
            return False
        return self.recorder.takes(x_t.device) and all(x.device == x_t.device for x in _tensors(arguments))

    def _follow(self, backbone: Backbone) -> None:
        """Forgets the graphs where modules are others, or parameters or buffers lie elsewhere, than when they were recorded."""
        self.passes += 1
        if self.addresses is not None:
            if self._addresses() == self.addresses:
                return
            self.moves += 1
            self.given_up = self.moves > MOST_MOVES and self.passes < self.moves * PASSES_A_MOVE
        self._forget(backbone)

    def _forget(self, backbone: Backbone) -> None:
        """Begins anew, with the modules and tensors that the backbone has now."""
        self.graphs, self.seen, self.recorder = {}, set(), self.new_recorder()
        self.parts = list(backbone.modules())[1:]
        self.tensors = [held for part in (backbone, *self.parts) for held in (part._parameters, part._buffers) if held]
        self.children = [part._modules for part in (backbone, *self.parts) if part._modules]
        self.calls = Calls(self.parts)
        self.dropouts = [part for part in self.parts if isinstance(part, nn.modules.dropout._DropoutNd)]
        self.addresses = self._addresses()

    def _addresses(self) -> list[int]:
        """Of modules and their tensors; in a tenth of the time of walking through the modules."""
        modules = [id(child) for held in self.children for child in held.values()]
        return modules + [x.data_ptr() for held in self.tensors for x in held.values() if x is not None]


class Graph:
    """A recorded pass for arguments of one kind."""

    def __init__(self, function: Callable, arguments: Arguments, recorder: Any):
        with (
            torch.inference_mode(False),
            torch.no_grad(),
        ):  # tensors made in inference mode could be written to in it alone
            static = _mapped(arguments, Tensor.clone)
            self.inputs = _tensors(static)
            self.replayed = recorder.record(functools.partial(function, *static), arguments[0].device)

    def __call__(self, arguments: Arguments) -> Any:
        """What the function gives for them, in tensors of their own."""
        for mine, given in zip(self.inputs, _tensors(arguments), strict=True):
            mine.copy_(given)
        return _mapped(self.replayed(), Tensor.clone)


def _mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """The value with function(x) in place of every tensor x in it, tuples and a Context taken in order."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        return tuple(_mapped(part, function) for part in value)
    if isinstance(value, Context):
        return replace(value, **{field.name: _mapped(getattr(value, field.name), function) for field in fields(value)})
    return value


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _mapped(value, found.append)
    return found


def _shape(x: Tensor) -> tuple[torch.Size, torch.dtype]:
    return x.shape, x.dtype


def _tokens(backbone: Backbone, x_t: Tensor, context: Context | None) -> float:
    """How many a block has on average: B·D before λ joins, B·M·D from then on."""
    if context is None or context.only_trunk:
        return x_t.numel()
    early = context.start / max(backbone.depth, 1) if context.trunk is None else 0.0
    return x_t.numel() * (early + (1 - early) * context.components)


def _without_modulation(context: Context | None) -> Context | None:
    """The context, None where it says only what comes after the backbone."""
    alone = context is not None and context.modulation is not None and not context.enters
    return None if alone else context


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: cuBLAS keeps memory for every stream that it has worked on."""
    return torch.cuda.Stream(device)
