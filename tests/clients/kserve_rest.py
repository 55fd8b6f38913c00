"""What the client of the KServe SDK does with a Firebox server: `kserve_rest.py URL`.

The server has `adder`, a model that adds one to `x` (FP32, one open dimension).
"""

import asyncio
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.constants.constants import PredictorProtocol


async def main(url):
    client = InferenceRESTClient(RESTConfig(protocol=PredictorProtocol.REST_V2, retries=0))
    assert await client.is_server_live(url) and await client.is_server_ready(url)
    assert await client.is_model_ready(url, "adder")
    assert not await client.is_model_ready(url, "nobody")
    x = np.array([1, 2.5], np.float32)
    for binary in [True, False]:
        given = InferInput(name="x", shape=[2], datatype="FP32")
        given.set_data_from_numpy(x, binary_data=binary)
        request = InferRequest(model_name="adder", infer_inputs=[given], request_id="mine")
        answer = await client.infer(url, request, model_name="adder")
        assert answer.id == "mine" and answer.model_name == "adder", answer
        [output] = answer.outputs
        assert output.name == "y" and np.array_equal(output.as_numpy(), x + 1), output
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
