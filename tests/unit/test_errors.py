"""fastprod.errors: the table against its sources, and kinship with kafka-python."""

import ast
import copy
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import kafka.errors  # type: ignore[import-untyped]
import pytest
from kio.schema.errors import ErrorCode

import fastprod
from fastprod import errors
from fastprod.errors.broker_table import BROKER_ERRORS
from fastprod.errors.table import ALIASES, CLIENT_ERRORS

pytestmark = pytest.mark.native_only

ROWS = {row.name: row for row in (*CLIENT_ERRORS, *BROKER_ERRORS)}
CLASS_NAMES = [*ROWS, *ALIASES]
CODES = [row.code for row in BROKER_ERRORS]

THEIRS: dict[str, Any] = {
    name: value
    for name, value in vars(kafka.errors).items()
    if isinstance(value, type) and issubclass(value, Exception)
}

# Facts of kafka-python that we do not share.
LEFT_OUT = {"LogTruncationError": "its constructor takes a consumer's positions"}
OURS_ALONE = {
    "BatchDeliveryError": "send_many and send_arrow are ours",
    "UnrecognizedBrokerError": "kafka-python makes it anew at each call of for_code",
    "NoBrokersAvailable": "a 2.x name that 3.x dropped",
    "InvalidRegularExpressionError": "code 128",
    "RebootstrapRequiredError": "code 129",
    "StreamsInvalidTopologyError": "code 130",
    "StreamsInvalidTopologyEpochError": "code 131",
    "StreamsTopologyFencedError": "code 132",
    "ShareSessionLimitReachedError": "code 133",
}
OTHER_RETRIABLE = {"CorruptRecordError"}
OTHER_METADATA = {"UnknownLeaderEpochError"}
OTHER_MESSAGE = {"TransactionAbortedError"}


def run_python(code: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    root = str(Path(fastprod.__file__).parents[1])
    prelude = f"import sys; sys.path.insert(0, {root!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestTable:
    def test_no_row_twice(self) -> None:
        assert len(ROWS) == len(CLIENT_ERRORS) + len(BROKER_ERRORS)
        assert len(set(CODES)) == len(CODES)

    def test_every_code_of_kafka_is_there_with_its_retriability(self) -> None:
        assert sorted(code for code in CODES if code is not None) == sorted(ErrorCode)
        for code in ErrorCode:
            assert errors.for_code(code).retriable is code.retriable, code

    def test_names_are_those_of_kafka_python(self) -> None:
        assert set(THEIRS) - set(CLASS_NAMES) == set(LEFT_OUT)
        assert set(CLASS_NAMES) - set(THEIRS) == set(OURS_ALONE)

    @pytest.mark.parametrize("name", sorted(set(THEIRS) - set(LEFT_OUT)))
    def test_facts_are_those_of_kafka_python(self, name: str) -> None:
        ours, theirs = getattr(errors, name), THEIRS[name]
        assert issubclass(ours, theirs)
        assert ours.__name__ == theirs.__name__
        assert ours.errno == getattr(theirs, "errno", None)
        if name not in OTHER_RETRIABLE and theirs.__name__ not in OTHER_RETRIABLE:
            assert ours.retriable is theirs.retriable
        if name not in OTHER_METADATA:
            assert ours.invalid_metadata is theirs.invalid_metadata
        if name not in OTHER_MESSAGE:
            assert ours.message == getattr(theirs, "message", None)

    @pytest.mark.parametrize("name", CLASS_NAMES)
    def test_flags_agree_with_descent(self, name: str) -> None:
        cls = getattr(errors, name)
        assert cls.retriable is issubclass(cls, errors.RetriableError)
        assert cls.invalid_metadata is issubclass(cls, errors.InvalidMetadataError)
        assert issubclass(cls, errors.KafkaError)
        assert cls.description.endswith(".") or "`" in cls.description

    def test_declarations_for_type_checkers_equal_the_table(self) -> None:
        path = Path(errors.__file__).with_name("_declared.pyi")
        declared: dict[str, tuple[str, ...]] = {}
        aliases: dict[str, str] = {}
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                declared[node.name] = tuple(ast.unparse(base) for base in node.bases)
            elif isinstance(node, ast.Assign):
                aliases[ast.unparse(node.targets[0])] = ast.unparse(node.value)
        assert declared == {name: row.bases or ("Exception",) for name, row in ROWS.items()}
        assert aliases == ALIASES


class TestForCode:
    @pytest.mark.parametrize("code", sorted(code for code in CODES if code is not None))
    def test_known(self, code: int) -> None:
        cls = errors.for_code(code)
        assert cls.errno == code
        assert cls is getattr(errors, cls.__name__)
        assert cls.__name__ == kafka.errors.for_code(code).__name__ or cls.__name__ in OURS_ALONE

    def test_retriability_without_a_class(self) -> None:
        codes = [code for code in CODES if code is not None] + [31999]
        assert all(errors.is_retriable(code) is errors.for_code(code).retriable for code in codes)

    def test_unknown(self) -> None:
        cls = errors.for_code(31999)
        assert cls is errors.for_code(31999)
        assert cls is not errors.for_code(31998)
        assert issubclass(cls, errors.UnrecognizedBrokerError)
        assert issubclass(cls, errors.UnknownError)
        assert cls.errno == 31999
        assert not cls.retriable
        assert str(cls("x")) == "[Error 31999] UnrecognizedBrokerError: x"


def made(name: str) -> errors.KafkaError:
    error: errors.KafkaError = getattr(errors, name)("text", 7)
    error.maybe_written = True
    return error


class TestInstances:
    @pytest.mark.parametrize("name", CLASS_NAMES)
    def test_survives_pickle_and_copy(self, name: str) -> None:
        error = made(name)
        others = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
        for other in [*others, copy.copy(error), copy.deepcopy(error)]:
            assert type(other) is type(error)
            assert other == error
            assert other.args == ("text", 7)
            assert (other.errno, other.message, other.maybe_written) == (error.errno, error.message, True)

    def test_unknown_code_survives_pickle(self) -> None:
        error = errors.for_code(4711)("text")
        error.maybe_written = True
        other = pickle.loads(pickle.dumps(error))
        assert type(other) is type(error)
        assert (other, other.errno, other.maybe_written) == (error, 4711, True)

    def test_batch_delivery_error_keeps_its_metadata(self) -> None:
        error = errors.BatchDeliveryError("2 of 3", metadata={"offsets": [1, -1, -1]})
        assert pickle.loads(pickle.dumps(error)).metadata == {"offsets": [1, -1, -1]}
        assert errors.BatchDeliveryError().metadata is None

    def test_equality_is_class_and_arguments(self) -> None:
        first: Any = errors.KafkaTimeoutError("a")
        assert first == errors.KafkaTimeoutError("a")
        assert first != errors.KafkaTimeoutError("b")
        assert first != errors.KafkaConnectionError("a")
        assert first != kafka.errors.KafkaTimeoutError("a")
        assert first != "a"

    def test_hashable(self) -> None:
        assert len({errors.KafkaTimeoutError("a"), errors.KafkaTimeoutError("a"), errors.KafkaError("a")}) == 2
        assert len({errors.KafkaTimeoutError(["a"]), errors.KafkaTimeoutError(["b"])}) == 2

    @pytest.mark.parametrize("name", sorted(set(THEIRS) - set(LEFT_OUT)))
    def test_text_is_that_of_kafka_python(self, name: str) -> None:
        ours, theirs = getattr(errors, name), THEIRS[name]
        assert str(ours("a", 1)) == str(theirs("a", 1))
        if name != "CommitFailedError":
            assert str(ours()) == str(theirs())

    def test_commit_failed_has_a_text_of_its_own(self) -> None:
        assert len(str(errors.CommitFailedError())) > 40
        assert str(errors.CommitFailedError("x")) == "CommitFailedError: x"

    def test_maybe_written_is_false_until_set(self) -> None:
        made("KafkaTimeoutError")
        assert errors.KafkaTimeoutError("a").maybe_written is False


class TestModule:
    def test_aliases(self) -> None:
        assert errors.NoBrokersAvailable is errors.KafkaTimeoutError
        assert errors.CorruptRecordException is errors.CorruptRecordError

    def test_names(self) -> None:
        assert set(errors.__all__) == {*CLASS_NAMES, "for_code", "is_retriable"}
        assert dir(errors) == sorted(errors.__all__)
        with pytest.raises(AttributeError, match="NoSuchError"):
            getattr(errors, "NoSuchError")  # noqa: B009

    def test_threads_see_one_class(self) -> None:
        assert (
            run_python("""
            import sys, threading
            sys.setswitchinterval(1e-6)
            from fastprod import errors
            gate, seen = threading.Barrier(8), []
            def get():
                gate.wait()
                seen.append(errors.UnknownTopicOrPartitionError)
            threads = [threading.Thread(target=get) for _ in range(8)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            print(len(set(seen)))
        """)
            == "1\n"
        )


USE = """
    import kafka.errors
    for name in ("KafkaError", "KafkaTimeoutError", "UnknownTopicOrPartitionError", "CorrelationIdError"):
        try:
            raise getattr(errors, name)("x")
        except getattr(kafka.errors, name) as caught:
            assert isinstance(caught, errors.KafkaError)
    try:
        raise errors.for_code(3)("x")
    except kafka.errors.InvalidMetadataError:
        print("caught")
"""


class TestKinship:
    def test_fastprod_first(self) -> None:
        code = """
            from fastprod import errors
            import fastprod.protocol, fastprod.types
            assert "kafka" not in sys.modules
            dir(errors), errors.__all__
            assert "kafka" not in sys.modules
        """
        assert run_python(textwrap.dedent(code) + textwrap.dedent(USE)) == "caught\n"

    def test_kafka_python_first(self) -> None:
        code = "import kafka, kafka.errors\nfrom fastprod import errors\n"
        assert run_python(code + textwrap.dedent(USE)) == "caught\n"

    def test_without_kafka_python(self) -> None:
        assert (
            run_python("""
            sys.modules["kafka"] = None
            from fastprod import errors
            for name in errors.__all__:
                value = getattr(errors, name)
                assert not isinstance(value, type) or all(
                    base.__module__.split(".")[0] in ("fastprod", "builtins") for base in value.__mro__)
            import pickle
            error = pickle.loads(pickle.dumps(errors.KafkaTimeoutError("x")))
            print(repr(error), error.retriable, errors.for_code(6)("y"))
        """)
            == "KafkaTimeoutError('x') True [Error 6] NotLeaderForPartitionError: y\n"
        )

    @pytest.mark.parametrize(
        "broken",
        [
            "raise SyntaxError('from another century')",
            "import no_such_module",
            "KafkaError = 5",
            "class KafkaError(BaseException): pass",
            "class KafkaError(Exception):\n    __slots__ = ('x',)\nclass RetriableError(ValueError): pass",
            "class RetriableError(Exception): pass\nclass KafkaError(RetriableError): pass",
        ],
    )
    def test_broken_or_foreign_kafka_package(self, broken: str, tmp_path: Path) -> None:
        package = tmp_path / "kafka"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "errors.py").write_text(broken)
        assert (
            run_python(f"""
            sys.path.insert(0, {str(tmp_path)!r})
            from fastprod import errors
            print(errors.KafkaTimeoutError("x"), errors.UnknownTopicOrPartitionError.retriable)
        """)
            == "KafkaTimeoutError: x True\n"
        )

    def test_two_x_kafka_python(self, tmp_path: Path) -> None:
        package = tmp_path / "kafka"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "errors.py").write_text(
            textwrap.dedent("""
            class KafkaError(RuntimeError):
                retriable = invalid_metadata = False
            class KafkaTimeoutError(KafkaError):
                retriable = True
            class KafkaProtocolError(KafkaError):
                retriable = True
            class NoBrokersAvailable(KafkaError):
                retriable = invalid_metadata = True
            class BrokerResponseError(KafkaError):
                errno = None
            class UnknownTopicOrPartitionError(BrokerResponseError):
                errno = 3
        """)
        )
        assert (
            run_python(f"""
            sys.path.insert(0, {str(tmp_path)!r})
            from fastprod import errors
            import kafka.errors
            assert issubclass(errors.KafkaTimeoutError, kafka.errors.KafkaTimeoutError)
            assert issubclass(errors.KafkaTimeoutError, kafka.errors.NoBrokersAvailable)
            assert issubclass(errors.UnknownTopicOrPartitionError, kafka.errors.BrokerResponseError)
            assert not errors.KafkaProtocolError.retriable
            assert not errors.KafkaTimeoutError.invalid_metadata
            print(errors.for_code(3)("x"))
        """)
            == "[Error 3] UnknownTopicOrPartitionError: x\n"
        )


def test_pickle_crosses_from_with_to_without_kafka_python() -> None:
    data = pickle.dumps(errors.for_code(3)("x"))
    assert (
        run_python(f"""
        import pickle
        sys.modules["kafka"] = None
        print(pickle.loads({data!r}))
    """)
        == "[Error 3] UnknownTopicOrPartitionError: x\n"
    )


def test_raising_from_several_threads_keeps_instances_apart() -> None:
    seen: list[bool] = []

    def body(flag: bool) -> None:
        error = errors.KafkaTimeoutError("x")
        if flag:
            error.maybe_written = True
        seen.append(error.maybe_written is flag)

    threads = [threading.Thread(target=body, args=(index % 2 == 0,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(seen)
