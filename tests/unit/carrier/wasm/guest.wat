;; A driver that behaves as its options say: {"mode":"a"} reads registers from its device, other letters misbehave.
;; Tags 1 .. 125 are the registers 0 .. 124 of a made-up device: 6 bytes asked, 4 bytes of head and 250 of data answered.
;; Memory: 0 results of imports, 64 results of exports, 128 the request, 512 tags, 1024 times, 1040 qualities,
;; 2048 values, 8192 and up what the host puts here, anew in each call.
(module
  (import "edge:driver/host@0.2.0" "send" (func $send (param i32 i32 i32 i32)))
  (import "edge:driver/host@0.2.0" "recv" (func $recv (param i32 i32 i32 i32)))
  (import "edge:driver/host@0.2.0" "emit" (func $emit (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "edge:driver/host@0.2.0" "log" (func $log (param i32 i32 i32)))
  (import "edge:driver/host@0.2.0" "now-ns" (func $now (result i64)))
  (import "edge:driver/host@0.2.0" "cancelled" (func $cancelled (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $sleep (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $print (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (memory (export "memory") 2)
  (global $top (mut i32) (i32.const 8192))
  (global $mode (mut i32) (i32.const 97))
  (data (i32.const 128) "\00\01\00\00\00\7d")
  (data (i32.const 160) "a line of its own")
  (data (i32.const 192) "\ff\fe")
  (data (i32.const 200) "hot")
  (data (i32.const 208) "[{\"tag\":3,\"key\":\"address\",\"text\":\"is no register\"},{\"tag\":99999},7]")
  (data (i32.const 320) "no such unit")

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $place i32)
    (if (i32.eq (global.get $mode) (i32.const 65)) (then (loop $for_ever (br $for_ever)))) ;; A
    (if (i32.eq (global.get $mode) (i32.const 66)) (then (return (i32.const 0x7fffffff)))) ;; B
    (if (i32.eq (global.get $mode) (i32.const 67)) ;; C
      (then (call $recv (i32.const 0) (i32.const 16) (i32.const 1000) (i32.const 0))))
    (local.set $place (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $place) (local.get 3)))
    (local.get $place))

  (func (export "edge:driver/guest@0.2.0#create") (param $at i32) (param $size i32) (result i32)
    (local $i i32)
    (global.set $mode (i32.load8_u offset=9 (local.get $at)))
    (loop $next ;; registers 0 .. 124 are tags 1 .. 125
      (i32.store offset=512 (i32.mul (local.get $i) (i32.const 4)) (i32.add (local.get $i) (i32.const 1)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 125))))
    (if (result i32) (i32.eq (global.get $mode) (i32.const 68)) ;; D
      (then (call $refuse (i32.const 320) (i32.const 12)))
      (else (call $well))))

  (func (export "edge:driver/guest@0.2.0#plan") (param i32 i32 i32) (result i32)
    (global.set $top (i32.const 8192))
    (if (i32.eq (global.get $mode) (i32.const 69)) (then (loop $for_ever (br $for_ever)))) ;; E
    (if (result i32) (i32.eq (global.get $mode) (i32.const 70)) ;; F
      (then (call $refuse (i32.const 208) (i32.const 67)))
      (else (call $well))))

  (func (export "edge:driver/guest@0.2.0#connect") (param i32) (result i32)
    (global.set $top (i32.const 8192))
    (if (i32.eq (global.get $mode) (i32.const 71)) (then (unreachable))) ;; G
    (if (result i32) (i32.eq (global.get $mode) (i32.const 72)) ;; H
      (then (call $refuse (i32.const 320) (i32.const 12)))
      (else (call $well))))

  (func (export "edge:driver/guest@0.2.0#disconnect")
    (if (i32.eq (global.get $mode) (i32.const 73)) (then (loop $for_ever (br $for_ever))))) ;; I

  (func $well (result i32) (i32.store (i32.const 64) (i32.const 0)) (i32.const 64))
  (func $refuse (param $at i32) (param $size i32) (result i32)
    (i32.store (i32.const 64) (i32.const 1))
    (i32.store (i32.const 68) (local.get $at))
    (i32.store (i32.const 72) (local.get $size))
    (i32.const 64))
  (func $fail (param $errc i32) (result i32)
    (i32.store (i32.const 64) (i32.const 1))
    (i32.store8 (i32.const 68) (local.get $errc))
    (i32.const 64))
  (func $deep (param i32) (result i32) (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func $rows (param $count i32) (param $case i32)
    (call $emit (i32.const 512) (local.get $count) (i32.const 1024) (i32.const 1) (i32.const 1040) (i32.const 1)
      (local.get $case) (i32.const 2048) (local.get $count)))

  (func $scan (result i32)
    (local $i i32) (local $from i32)
    (call $send (i32.const 0) (i32.const 128) (i32.const 6) (i32.const 0))
    (if (i32.load8_u (i32.const 0)) (then (return (call $fail (i32.load8_u (i32.const 1))))))
    (call $recv (i32.const 0) (i32.const 254) (i32.const 1000) (i32.const 0))
    (if (i32.load8_u (i32.const 0)) (then (return (call $fail (i32.load8_u (i32.const 4))))))
    (if (i32.ne (i32.load (i32.const 8)) (i32.const 254)) (then (return (call $fail (i32.const 3)))))
    (local.set $from (i32.add (i32.load (i32.const 4)) (i32.const 4)))
    (loop $next
      (i64.store offset=2048 (i32.mul (local.get $i) (i32.const 8))
        (i64.or
          (i64.shl (i64.load8_u (i32.add (local.get $from) (i32.mul (local.get $i) (i32.const 2)))) (i64.const 8))
          (i64.load8_u offset=1 (i32.add (local.get $from) (i32.mul (local.get $i) (i32.const 2))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 125))))
    (call $rows (i32.const 125) (i32.const 1))
    (call $well))

  (func (export "edge:driver/guest@0.2.0#poll") (param $group i32) (param $budget i32) (result i32)
    (local $mode i32)
    (global.set $top (i32.const 8192))
    (local.set $mode (global.get $mode))
    (if (i32.eq (local.get $mode) (i32.const 33)) ;; !: rows without asking anybody
      (then (call $rows (i32.const 125) (i32.const 1)) (return (call $well))))
    (if (i32.eq (local.get $mode) (i32.const 98)) (then (drop (i32.load (i32.const 0x7ffffff0))))) ;; b
    (if (i32.eq (local.get $mode) (i32.const 99)) (then (loop $for_ever (br $for_ever)))) ;; c
    (if (i32.eq (local.get $mode) (i32.const 100)) (then (drop (call $deep (i32.const 0))))) ;; d
    (if (i32.eq (local.get $mode) (i32.const 101)) ;; e: as much memory as there is, then a stop
      (then (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)))
    (if (i32.eq (local.get $mode) (i32.const 102)) (then (loop $for_ever (drop (call $now)) (br $for_ever)))) ;; f
    (if (i32.eq (local.get $mode) (i32.const 103)) ;; g
      (then (loop $for_ever (call $log (i32.const 9) (i32.const 160) (i32.const 17)) (br $for_ever))))
    (if (i32.eq (local.get $mode) (i32.const 104)) ;; h
      (then (loop $for_ever (call $rows (i32.const 125) (i32.const 1)) (br $for_ever))))
    (if (i32.eq (local.get $mode) (i32.const 105)) ;; i: outside of its memory
      (then (call $emit (i32.const 0x7fffffff) (i32.const 9) (i32.const 1024) (i32.const 1) (i32.const 1040)
        (i32.const 1) (i32.const 1) (i32.const 2048) (i32.const 9))))
    (if (i32.eq (local.get $mode) (i32.const 106)) ;; j: 4 Gi rows
      (then (call $emit (i32.const 512) (i32.const -1) (i32.const 1024) (i32.const -1) (i32.const 1040)
        (i32.const -1) (i32.const 1) (i32.const 2048) (i32.const -1))))
    (if (i32.eq (local.get $mode) (i32.const 107)) ;; k: a tag of somebody else
      (then (i32.store (i32.const 512) (i32.const 70000)) (call $rows (i32.const 1) (i32.const 1))))
    (if (i32.eq (local.get $mode) (i32.const 108)) (then (call $rows (i32.const 1) (i32.const 99)))) ;; l
    (if (i32.eq (local.get $mode) (i32.const 109)) ;; m: more values than tags
      (then (call $emit (i32.const 512) (i32.const 3) (i32.const 1024) (i32.const 1) (i32.const 1040) (i32.const 1)
        (i32.const 1) (i32.const 2048) (i32.const 4))))
    (if (i32.eq (local.get $mode) (i32.const 110)) (then (call $exit (i32.const 3)))) ;; n
    (if (i32.eq (local.get $mode) (i32.const 111)) (then (return (call $fail (i32.const 77))))) ;; o
    (if (i32.eq (local.get $mode) (i32.const 112)) (then (return (i32.const 0x7fffffff)))) ;; p
    (if (i32.eq (local.get $mode) (i32.const 113)) ;; q: sleeps for an hour
      (then (i64.store (i32.const 1104) (i64.const 0)) (i64.store (i32.const 1120) (i64.const 3600000000000))
        (drop (call $sleep (i32.const 1096) (i32.const 1200) (i32.const 1) (i32.const 1300)))
        (loop $for_ever (br $for_ever))))
    (if (i32.eq (local.get $mode) (i32.const 114)) ;; r: waits for ever, again and again
      (then (loop $for_ever (call $recv (i32.const 0) (i32.const 1) (i32.const -1) (i32.const 0)) (br $for_ever))))
    (if (i32.eq (local.get $mode) (i32.const 115)) ;; s: a text that is none, one of a tag, and a time and quality each
      (then
        (i32.store (i32.const 2048) (i32.const 192)) (i32.store (i32.const 2052) (i32.const 2))
        (i32.store (i32.const 2056) (i32.const 200)) (i32.store (i32.const 2060) (i32.const 3))
        (i64.store (i32.const 1024) (i64.const 1700000000000000000)) (i64.store (i32.const 1032) (i64.const 0))
        (i32.store (i32.const 1040) (i32.const 0)) (i32.store (i32.const 1044) (i32.const 0x40000000))
        (call $emit (i32.const 512) (i32.const 2) (i32.const 1024) (i32.const 2) (i32.const 1040) (i32.const 2)
          (i32.const 4) (i32.const 2048) (i32.const 2))
        (return (call $well))))
    (if (i32.eq (local.get $mode) (i32.const 116)) ;; t: a text outside of its memory
      (then
        (i32.store (i32.const 2048) (i32.const 192)) (i32.store (i32.const 2052) (i32.const -1))
        (call $rows (i32.const 1) (i32.const 4))))
    (if (i32.eq (local.get $mode) (i32.const 117)) ;; u: what the host sends is refused a place
      (then (global.set $mode (i32.const 66)) (return (call $scan))))
    (if (i32.eq (local.get $mode) (i32.const 118)) ;; v: calls the host from cabi_realloc
      (then (global.set $mode (i32.const 67)) (return (call $scan))))
    (if (i32.eq (local.get $mode) (i32.const 119)) ;; w: reals, one of them NaN
      (then (f64.store (i32.const 2048) (f64.const nan)) (f64.store (i32.const 2056) (f64.const 2.5))
        (call $rows (i32.const 2) (i32.const 0)) (return (call $well))))
    (if (i32.eq (local.get $mode) (i32.const 120)) ;; x: a line to the log, and one that it prints
      (then
        (call $log (i32.const 2) (i32.const 160) (i32.const 17))
        (i32.store (i32.const 1200) (i32.const 160)) (i32.store (i32.const 1204) (i32.const 6))
        (drop (call $print (i32.const 1) (i32.const 1200) (i32.const 1) (i32.const 1300)))
        (return (call $scan))))
    (if (i32.and (i32.ge_u (local.get $mode) (i32.const 48)) (i32.le_u (local.get $mode) (i32.const 56)))
      ;; 0 .. 8: three rows, and that errc
      (then (call $rows (i32.const 3) (i32.const 1)) (return (call $fail (i32.sub (local.get $mode) (i32.const 48))))))
    (if (i32.eq (local.get $mode) (i32.const 57)) ;; 9: three rows, and all is well
      (then (call $rows (i32.const 3) (i32.const 1)) (return (call $well))))
    (call $scan))

  ;; the status of each row: the low byte of its value; 9: says so after it has sent something; 200: stops
  (func (export "edge:driver/guest@0.2.0#write")
    (param $tag i32) (param $tags i32) (param $ts i32) (param i32) (param $quality i32) (param i32)
    (param $case i32) (param $value i32) (param $values i32) (param $budget i32) (result i32)
    (local $i i32) (local $status i32)
    (if (i32.eq (global.get $mode) (i32.const 121)) (then (return (call $fail (i32.const 1))))) ;; y
    (loop $next
      (local.set $status (i32.load8_u (i32.add (local.get $value) (i32.mul (local.get $i) (i32.const 8)))))
      (if (i32.ge_u (local.get $status) (i32.const 200)) (then
        (if (i32.eq (local.get $status) (i32.const 201))
          (then (call $send (i32.const 0) (i32.const 128) (i32.const 6) (i32.const 0))))
        (unreachable)))
      (i32.store8 offset=1400 (local.get $i) (local.get $status))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $tags))))
    (i32.store (i32.const 64) (i32.const 0))
    (i32.store (i32.const 68) (i32.const 1400))
    (i32.store (i32.const 72) (select (i32.const 0) (local.get $tags) (i32.eq (global.get $mode) (i32.const 122)))) ;; z
    (i32.const 64)))
