import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNSPECIFIED: _ClassVar[Action]
    APPROVE: _ClassVar[Action]
    STEP_UP: _ClassVar[Action]
    REVIEW: _ClassVar[Action]
    DECLINE: _ClassVar[Action]

class StandIn(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NONE: _ClassVar[StandIn]
    DEADLINE: _ClassVar[StandIn]
    OVERLOAD: _ClassVar[StandIn]
    MODEL_UNAVAILABLE: _ClassVar[StandIn]
    MODEL_ERROR: _ClassVar[StandIn]

class ReasonCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[ReasonCode]
    LEAST_EXPECTED_COST: _ClassVar[ReasonCode]
    NEAR_TIE: _ClassVar[ReasonCode]
    CATEGORY_HARM: _ClassVar[ReasonCode]
    THRESHOLD_OVERRIDE: _ClassVar[ReasonCode]
    CALENDAR_EVENT: _ClassVar[ReasonCode]
    EXPLORATION: _ClassVar[ReasonCode]
    STOOD_IN: _ClassVar[ReasonCode]
    FEATURE_DEFAULTED: _ClassVar[ReasonCode]
ACTION_UNSPECIFIED: Action
APPROVE: Action
STEP_UP: Action
REVIEW: Action
DECLINE: Action
NONE: StandIn
DEADLINE: StandIn
OVERLOAD: StandIn
MODEL_UNAVAILABLE: StandIn
MODEL_ERROR: StandIn
REASON_UNSPECIFIED: ReasonCode
LEAST_EXPECTED_COST: ReasonCode
NEAR_TIE: ReasonCode
CATEGORY_HARM: ReasonCode
THRESHOLD_OVERRIDE: ReasonCode
CALENDAR_EVENT: ReasonCode
EXPLORATION: ReasonCode
STOOD_IN: ReasonCode
FEATURE_DEFAULTED: ReasonCode

class DecideRequest(_message.Message):
    __slots__ = ("product", "transaction_id", "event_time", "amount", "currency", "category", "channel", "subject", "features", "dense", "schema_fingerprint")
    class FeaturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: FeatureValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[FeatureValue, _Mapping]] = ...) -> None: ...
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    product: str
    transaction_id: str
    event_time: _timestamp_pb2.Timestamp
    amount: int
    currency: str
    category: str
    channel: str
    subject: str
    features: _containers.MessageMap[str, FeatureValue]
    dense: bytes
    schema_fingerprint: str
    def __init__(self, product: _Optional[str] = ..., transaction_id: _Optional[str] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., amount: _Optional[int] = ..., currency: _Optional[str] = ..., category: _Optional[str] = ..., channel: _Optional[str] = ..., subject: _Optional[str] = ..., features: _Optional[_Mapping[str, FeatureValue]] = ..., dense: _Optional[bytes] = ..., schema_fingerprint: _Optional[str] = ...) -> None: ...

class FeatureValue(_message.Message):
    __slots__ = ("number", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: float
    text: str
    def __init__(self, number: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("code", "contribution")
    CODE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    code: ReasonCode
    contribution: float
    def __init__(self, code: _Optional[_Union[ReasonCode, str]] = ..., contribution: _Optional[float] = ...) -> None: ...

class ExpectedCost(_message.Message):
    __slots__ = ("action", "cost")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    action: Action
    cost: float
    def __init__(self, action: _Optional[_Union[Action, str]] = ..., cost: _Optional[float] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    digest: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class DecideResponse(_message.Message):
    __slots__ = ("decision_id", "action", "reasons", "probability", "expected_costs", "threshold", "model", "product_generation", "stand_in", "budget_us", "elapsed_us", "contact_by", "recorded")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_COSTS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_GENERATION_FIELD_NUMBER: _ClassVar[int]
    STAND_IN_FIELD_NUMBER: _ClassVar[int]
    BUDGET_US_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_US_FIELD_NUMBER: _ClassVar[int]
    CONTACT_BY_FIELD_NUMBER: _ClassVar[int]
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    action: Action
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    probability: float
    expected_costs: _containers.RepeatedCompositeFieldContainer[ExpectedCost]
    threshold: float
    model: Model
    product_generation: int
    stand_in: StandIn
    budget_us: int
    elapsed_us: int
    contact_by: _timestamp_pb2.Timestamp
    recorded: bool
    def __init__(self, decision_id: _Optional[str] = ..., action: _Optional[_Union[Action, str]] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., probability: _Optional[float] = ..., expected_costs: _Optional[_Iterable[_Union[ExpectedCost, _Mapping]]] = ..., threshold: _Optional[float] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., product_generation: _Optional[int] = ..., stand_in: _Optional[_Union[StandIn, str]] = ..., budget_us: _Optional[int] = ..., elapsed_us: _Optional[int] = ..., contact_by: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., recorded: _Optional[bool] = ...) -> None: ...
