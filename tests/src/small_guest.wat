;; The smallest function there is: takes nothing, gives nothing. Its memory is all zeros at 16, which
;; reads as a signature without tensors and as an answer without outputs.
(component
  (core module $code
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 1024))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at))
    (func (export "init"))
    (func (export "describe") (result i32) (i32.const 16))
    (func (export "infer") (param i32 i32 i32 i32 i32 i32) (result i32) (i32.const 16)))
  (core instance $code (instantiate $code))
  (alias core export $code "memory" (core memory $memory))
  (alias core export $code "cabi_realloc" (core func $realloc))

  (type $dtype (enum "bool" "u8" "u16" "u32" "u64" "i8" "i16" "i32" "i64" "f16" "bf16" "f32" "f64" "bytes"))
  (export $dtype' "dtype" (type $dtype))
  (type $tensor (record
    (field "name" string) (field "dtype" $dtype') (field "shape" (list u64)) (field "data" (list u8))))
  (export $tensor' "tensor" (type $tensor))
  (type $value (variant (case "bool" bool) (case "int64" s64) (case "double" f64) (case "text" string)))
  (export $value' "parameter-value" (type $value))
  (type $parameter (record (field "name" string) (field "value" $value')))
  (export $parameter' "parameter" (type $parameter))
  (type $request (record
    (field "id" string) (field "inputs" (list $tensor')) (field "parameters" (list $parameter'))))
  (export $request' "request" (type $request))
  (type $response (record
    (field "outputs" (list $tensor')) (field "parameters" (list $parameter'))))
  (export $response' "response" (type $response))
  (type $code-of-error (enum "invalid-input" "unavailable" "internal"))
  (export $code-of-error' "error-code" (type $code-of-error))
  (type $error (record (field "code" $code-of-error') (field "message" string)))
  (export $error' "error" (type $error))
  (type $spec (record
    (field "name" string) (field "dtype" $dtype') (field "shape" (list (option u64)))))
  (export $spec' "tensor-spec" (type $spec))
  (type $signature (record (field "inputs" (list $spec')) (field "outputs" (list $spec'))))
  (export $signature' "signature" (type $signature))

  (func (export "init") (canon lift (core func $code "init")))
  (func (export "describe") (result $signature')
    (canon lift (core func $code "describe") (memory $memory)))
  (func (export "infer") (param "request" $request') (result (result $response' (error $error')))
    (canon lift (core func $code "infer") (memory $memory) (realloc $realloc))))
