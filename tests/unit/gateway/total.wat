;; A rule: output 0 is the sum of everything that ever came, output 1 the last value of input 1 where that was Good.
;; A value of -1 makes it loop, -2 trap, -3 answer with too many rows, -4 with output 9.
;; 64: capacity 8 and columns; 256: {place, size} of the state at 512; 1024 tags, 2048 times, 3072 qualities,
;; 4096 values, 5120 keep.
(module
  (memory (export "memory") 1)
  (data (i32.const 64) "\08\00\00\00\00\04\00\00\00\08\00\00\00\0c\00\00\00\10\00\00\00\14\00\00")
  (data (i32.const 256) "\00\02\00\00\08\00\00\00")
  (func (export "edge_rule_api") (result i32) (i32.const 1))
  (func (export "edge_rule_buffer") (result i32) (i32.const 64))
  (func (export "edge_rule_state") (result i32) (i32.const 256))
  (func (export "edge_rule_tick") (param $now i64) (result i32)
    (i32.store (i32.const 1024) (i32.const 0))
    (i64.store (i32.const 2048) (local.get $now))
    (i32.store (i32.const 3072) (i32.const 0))
    (f64.store (i32.const 4096) (f64.load (i32.const 512)))
    (i32.store8 (i32.const 5120) (i32.const 1))
    (i32.const 1))
  (func (export "edge_rule_batch") (param $rows i32) (result i32)
    (local $i i32) (local $value f64)
    (loop $next
      (local.set $value (f64.load offset=4096 (i32.shl (local.get $i) (i32.const 3))))
      (if (f64.eq (local.get $value) (f64.const -1)) (then (loop $for_ever (br $for_ever))))
      (if (f64.eq (local.get $value) (f64.const -2)) (then (unreachable)))
      (if (f64.eq (local.get $value) (f64.const -3)) (then (return (i32.const 9))))
      (if (f64.eq (local.get $value) (f64.const -4)) (then
        (i32.store (i32.const 1024) (i32.const 9)) (i32.store8 (i32.const 5120) (i32.const 1)) (return (i32.const 1))))
      (if (f64.eq (local.get $value) (local.get $value)) (then
        (f64.store (i32.const 512) (f64.add (f64.load (i32.const 512)) (local.get $value)))))
      (i32.store8 offset=5120 (local.get $i)
        (i32.and
          (i32.eq (i32.load offset=1024 (i32.shl (local.get $i) (i32.const 2))) (i32.const 1))
          (i32.eqz (i32.load offset=3072 (i32.shl (local.get $i) (i32.const 2))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $rows))))
    (local.get $rows)))
