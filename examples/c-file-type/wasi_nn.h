/* wasi-nn's classic interface, the module `wasi_ephemeral_nn`, as far as a program needs it. The
 * numbers are those of the interface's witx description. */
#ifndef WASI_NN_H
#define WASI_NN_H

#include <stdint.h>

/* What every call answers with; 0 is success. */
enum wasi_nn_error {
    WASI_NN_SUCCESS = 0,
    WASI_NN_INVALID_ARGUMENT = 1,
    WASI_NN_INVALID_ENCODING = 2,
    WASI_NN_MISSING_MEMORY = 3,
    WASI_NN_BUSY = 4,
    WASI_NN_RUNTIME_ERROR = 5,
    WASI_NN_UNSUPPORTED_OPERATION = 6,
    WASI_NN_TOO_LARGE = 7,
    WASI_NN_NOT_FOUND = 8,
};

enum wasi_nn_type {
    WASI_NN_F16 = 0,
    WASI_NN_F32 = 1,
    WASI_NN_F64 = 2,
    WASI_NN_U8 = 3,
    WASI_NN_I32 = 4,
    WASI_NN_I64 = 5,
};

enum wasi_nn_encoding { WASI_NN_ONNX = 1, WASI_NN_AUTODETECT = 5 };

enum wasi_nn_target { WASI_NN_CPU = 0, WASI_NN_GPU = 1, WASI_NN_TPU = 2 };

/* A model's file. */
struct wasi_nn_builder {
    const void *data;
    uint32_t length;
};

/* Row-major and little-endian: as many bytes as the dimensions and the type say. */
struct wasi_nn_tensor {
    const uint32_t *dimensions;
    uint32_t rank;
    uint8_t type;
    const void *data;
    uint32_t length;
};

#define WASI_NN_IMPORT(name) \
    __attribute__((import_module("wasi_ephemeral_nn"), import_name(name)))

WASI_NN_IMPORT("load")
uint32_t wasi_nn_load(const struct wasi_nn_builder *builders, uint32_t count, uint32_t encoding,
                      uint32_t target, uint32_t *graph);

WASI_NN_IMPORT("load_by_name")
uint32_t wasi_nn_load_by_name(const char *name, uint32_t length, uint32_t *graph);

WASI_NN_IMPORT("init_execution_context")
uint32_t wasi_nn_init_execution_context(uint32_t graph, uint32_t *context);

WASI_NN_IMPORT("set_input")
uint32_t wasi_nn_set_input(uint32_t context, uint32_t index, const struct wasi_nn_tensor *tensor);

WASI_NN_IMPORT("compute")
uint32_t wasi_nn_compute(uint32_t context);

WASI_NN_IMPORT("get_output")
uint32_t wasi_nn_get_output(uint32_t context, uint32_t index, void *buffer, uint32_t size,
                            uint32_t *written);

#endif
