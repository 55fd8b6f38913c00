"""What a probe asks the standard health service: `health_probe.py ADDRESS check|watch`."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

ADDRESS, PART = sys.argv[1:]
STATUS = health_pb2.HealthCheckResponse.ServingStatus


def check(stub):
    for service in ["", "inference.GRPCInferenceService", "grpc.health.v1.Health"]:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
        assert answer.status == STATUS.Value("SERVING"), (service, answer)
    try:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=30)
        raise AssertionError("an unknown service is answered")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    print("passed")


def watch(stub):
    """Prints what is said, to the end that the server makes."""
    try:
        for answer in stub.Watch(health_pb2.HealthCheckRequest(), timeout=120):
            print(STATUS.Name(answer.status), flush=True)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error


with grpc.insecure_channel(ADDRESS) as channel:
    {"check": check, "watch": watch}[PART](health_pb2_grpc.HealthStub(channel))
