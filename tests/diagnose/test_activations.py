from __future__ import annotations

from gradcheck_cli.diagnose.activations import find_families, find_feeding_layers
from gradcheck_cli.signals import Site
from tests.diagnose.recordings import make_recording
from tests.diagnose.signals import with_signals


def test_what_follows_a_layer_in_a_sequence() -> None:
    parameters = {f"net.{index}.weight": (8, 8) for index in (0, 3, 6, 8)} | {"net.7.weight": (8,)}
    types = {"net.1": "Dropout", "net.2": "Tanh", "net.4": "GELU", "net.7": "BatchNorm1d", "net.9": "Sigmoid"}
    order = ["net.0", "net.3", "net.6", "net.7", "net.8"]
    found = find_families(make_recording(parameters=parameters, modules=types, probed=order))
    assert (found["net.0"], found["net.3"], found["net.6"], found["net.8"]) == ("tanh", "relu", "norm", "tanh")


def test_a_normalisation_without_parameters_counts() -> None:
    found = find_families(make_recording(parameters={"net.0.weight": (8, 8)}, modules={"net.1": "InstanceNorm2d"}))
    assert found == {"net.0": "norm"}


def test_elsewhere_it_is_what_is_nearest() -> None:
    parameters = {"a.fc.weight": (8, 8), "b.fc.weight": (8, 8), "head.weight": (8, 8)}
    recording = make_recording(parameters=parameters, modules={"b.act": "SiLU"})
    sites = Site("a", "tanh"), Site("c", "relu")
    found = find_families(with_signals(recording, activations={site: {} for site in sites}))
    assert found == {"a.fc": "tanh", "b.fc": "relu", "head": "relu"}


def test_no_activation_and_selu_are_linear() -> None:
    assert set(find_families(make_recording()).values()) == {"linear"}
    assert find_families(make_recording(modules={"act": "SELU"}))["fc1"] == "linear"


def test_in_a_sequence_the_layer_before_feeds_a_function() -> None:
    parameters = {"net.0.weight": (8, 8), "net.1.weight": (8,), "net.3.weight": (8, 8)}
    modules = {"net.1": "BatchNorm1d", "net.2": "ReLU", "net.10": "ReLU"}
    relus = [Site("net.2", "relu"), Site("net.10", "relu")]
    recording = with_signals(
        make_recording(parameters=parameters, modules=modules), activations={site: {} for site in relus}
    )
    assert find_feeding_layers(recording) == {relus[0]: "net.0", relus[1]: "net.3"}


def test_elsewhere_functions_and_layers_are_numbered() -> None:
    parameters = {f"block.{name}.weight": (8, 8) for name in ("conv1", "conv2", "conv3")}
    sites = [Site("block", "relu", 0), Site("block.act", "tanh", 0), Site("block", "relu", 1)]
    recording = make_recording(parameters=parameters, modules={"block.act": "Tanh"})
    found = find_feeding_layers(with_signals(recording, activations={site: {} for site in sites}))
    assert found == dict(zip(sites, ["block.conv1", "block.conv2", "block.conv3"], strict=True))


def test_with_more_functions_than_layers_it_is_the_caller() -> None:
    sites = [Site("cell", "sigmoid", call) for call in range(3)]
    recording = make_recording(parameters={"cell.x.weight": (8, 8), "cell.h.weight": (8, 8)})
    found = find_feeding_layers(with_signals(recording, activations={site: {} for site in sites}))
    assert set(found.values()) == {"cell"}
