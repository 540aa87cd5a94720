(* OCaml 5 runs OCaml on fibers and C, here the comparison, on the system's stack. *)
let rec build n = if n = 0 then [] else (n, string_of_int n) :: build (n - 1)
let[@inline never] sorts list = List.sort compare list
let[@inline never] calls list = ignore (Sys.opaque_identity (sorts list))

let () =
  let list = build 3000 in
  let stop = Unix.gettimeofday () +. float_of_string Sys.argv.(1) in
  while Unix.gettimeofday () < stop do calls list done
