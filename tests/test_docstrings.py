"""Every public name says what it takes, what it gives, and how it is used."""

import importlib
import inspect
import pkgutil

import pytest

import optimum_sleb


def public_callables():
    for module_info in pkgutil.walk_packages(optimum_sleb.__path__, "optimum_sleb."):
        if module_info.name.split(".")[-1].startswith("_") or ".cli" in module_info.name:
            continue
        module = importlib.import_module(module_info.name)
        for name, member in vars(module).items():
            if name.startswith("_") or getattr(member, "__module__", None) != module.__name__:
                continue
            if inspect.isfunction(member):
                yield pytest.param(member, id=f"{module.__name__}.{name}")
            elif inspect.isclass(member):
                for method_name, method in vars(member).items():
                    method = getattr(method, "__func__", method)
                    is_method = inspect.isfunction(method) and method.__name__ == method_name
                    if is_method and not method_name.startswith("_") and method_name != "forward":
                        yield pytest.param(method, id=f"{module.__name__}.{name}.{method_name}")


@pytest.mark.parametrize("function", public_callables())
def test_docstring_is_complete(function) -> None:
    text = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    parameters = [name for name in signature.parameters if name not in ("self", "cls")]
    documented = text.partition("Args:")[2].partition("\n\n")[0]
    for name in parameters:
        assert f"{name.removeprefix('*')}:" in documented, f"{name} is not documented"
    if signature.return_annotation not in (None, "None", inspect.Signature.empty):
        is_iterator = "Iterator" in str(signature.return_annotation)
        is_context = hasattr(function, "__wrapped__")
        assert "Returns:" in text or (is_iterator and "Yields:" in text) or is_context
    if not (len(parameters) == 3 and parameters[1:] == ["_args", "_kwargs"]):
        assert "Example:" in text


def test_public_names_are_importable_and_documented() -> None:
    for name in optimum_sleb.__all__:
        assert inspect.getdoc(getattr(optimum_sleb, name))
    assert dir(optimum_sleb) == optimum_sleb.__all__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        optimum_sleb.nothing  # noqa: B018
