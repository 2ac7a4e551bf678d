import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from gateway.v1 import decision_pb2 as _decision_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FeedbackKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[FeedbackKind]
    CHARGEBACK: _ClassVar[FeedbackKind]
    EARLY_FRAUD_WARNING: _ClassVar[FeedbackKind]
    REFUND: _ClassVar[FeedbackKind]
    CUSTOMER_CONFIRMED: _ClassVar[FeedbackKind]
    CUSTOMER_DENIED: _ClassVar[FeedbackKind]
    CUSTOMER_CONTACTED: _ClassVar[FeedbackKind]
    STEP_UP_PASSED: _ClassVar[FeedbackKind]
    STEP_UP_FAILED: _ClassVar[FeedbackKind]
    STEP_UP_ABANDONED: _ClassVar[FeedbackKind]
    ANALYST_FRAUD: _ClassVar[FeedbackKind]
    ANALYST_GENUINE: _ClassVar[FeedbackKind]
    STAND_IN_ADVICE: _ClassVar[FeedbackKind]
    WITHDRAWN: _ClassVar[FeedbackKind]

class Liable(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIABLE_UNKNOWN: _ClassVar[Liable]
    ISSUER: _ClassVar[Liable]
    MERCHANT: _ClassVar[Liable]
    CUSTOMER: _ClassVar[Liable]
KIND_UNSPECIFIED: FeedbackKind
CHARGEBACK: FeedbackKind
EARLY_FRAUD_WARNING: FeedbackKind
REFUND: FeedbackKind
CUSTOMER_CONFIRMED: FeedbackKind
CUSTOMER_DENIED: FeedbackKind
CUSTOMER_CONTACTED: FeedbackKind
STEP_UP_PASSED: FeedbackKind
STEP_UP_FAILED: FeedbackKind
STEP_UP_ABANDONED: FeedbackKind
ANALYST_FRAUD: FeedbackKind
ANALYST_GENUINE: FeedbackKind
STAND_IN_ADVICE: FeedbackKind
WITHDRAWN: FeedbackKind
LIABLE_UNKNOWN: Liable
ISSUER: Liable
MERCHANT: Liable
CUSTOMER: Liable

class FeedbackEvent(_message.Message):
    __slots__ = ("product", "transaction_id", "decision_id", "kind", "occurred_time", "reported_time", "amount", "currency", "liable", "source", "source_event_id", "supersedes", "action", "category", "subject")
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_TIME_FIELD_NUMBER: _ClassVar[int]
    REPORTED_TIME_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    LIABLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDES_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    product: str
    transaction_id: str
    decision_id: str
    kind: FeedbackKind
    occurred_time: _timestamp_pb2.Timestamp
    reported_time: _timestamp_pb2.Timestamp
    amount: int
    currency: str
    liable: Liable
    source: str
    source_event_id: str
    supersedes: str
    action: _decision_pb2.Action
    category: str
    subject: str
    def __init__(self, product: _Optional[str] = ..., transaction_id: _Optional[str] = ..., decision_id: _Optional[str] = ..., kind: _Optional[_Union[FeedbackKind, str]] = ..., occurred_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reported_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., amount: _Optional[int] = ..., currency: _Optional[str] = ..., liable: _Optional[_Union[Liable, str]] = ..., source: _Optional[str] = ..., source_event_id: _Optional[str] = ..., supersedes: _Optional[str] = ..., action: _Optional[_Union[_decision_pb2.Action, str]] = ..., category: _Optional[str] = ..., subject: _Optional[str] = ...) -> None: ...

class ReportFeedbackRequest(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[FeedbackEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[FeedbackEvent, _Mapping]]] = ...) -> None: ...

class FeedbackViolation(_message.Message):
    __slots__ = ("index", "field", "description")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    index: int
    field: str
    description: str
    def __init__(self, index: _Optional[int] = ..., field: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class ReportFeedbackResponse(_message.Message):
    __slots__ = ("accepted", "duplicates", "refused", "violations")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    duplicates: int
    refused: int
    violations: _containers.RepeatedCompositeFieldContainer[FeedbackViolation]
    def __init__(self, accepted: _Optional[int] = ..., duplicates: _Optional[int] = ..., refused: _Optional[int] = ..., violations: _Optional[_Iterable[_Union[FeedbackViolation, _Mapping]]] = ...) -> None: ...

class SubjectAttribute(_message.Message):
    __slots__ = ("subject", "attribute", "value", "reported_time", "source")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    REPORTED_TIME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    subject: str
    attribute: str
    value: str
    reported_time: _timestamp_pb2.Timestamp
    source: str
    def __init__(self, subject: _Optional[str] = ..., attribute: _Optional[str] = ..., value: _Optional[str] = ..., reported_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., source: _Optional[str] = ...) -> None: ...

class ReportAttributesRequest(_message.Message):
    __slots__ = ("attributes",)
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    attributes: _containers.RepeatedCompositeFieldContainer[SubjectAttribute]
    def __init__(self, attributes: _Optional[_Iterable[_Union[SubjectAttribute, _Mapping]]] = ...) -> None: ...

class ReportAttributesResponse(_message.Message):
    __slots__ = ("accepted", "duplicates", "refused", "violations")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    duplicates: int
    refused: int
    violations: _containers.RepeatedCompositeFieldContainer[FeedbackViolation]
    def __init__(self, accepted: _Optional[int] = ..., duplicates: _Optional[int] = ..., refused: _Optional[int] = ..., violations: _Optional[_Iterable[_Union[FeedbackViolation, _Mapping]]] = ...) -> None: ...
