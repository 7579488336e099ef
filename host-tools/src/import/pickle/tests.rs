use super::*;
use proptest::prelude::*;

#[test]
fn a_dictionary_comes_out_as_it_went_in() {
    // pickle.dumps({"a": [1, -2, 70000], "b": (3,)}, protocol=2)
    let pickle = Pickle::parse(
        b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xffJp\x11\x01\x00e\
          X\x01\x00\x00\x00bq\x03K\x03\x85q\x04u.",
    )
    .unwrap();
    let items = pickle.dict(pickle.root()).unwrap();
    let ints = |id| -> Vec<i64> {
        pickle.list(id).unwrap().iter().map(|&i| pickle.int(i).unwrap()).collect()
    };
    let found: Vec<_> = items.iter().map(|&(k, v)| (pickle.text(k).unwrap(), ints(v))).collect();
    assert_eq!(found, [("a", vec![1, -2, 70000]), ("b", vec![3])]);
}

#[test]
fn protocol_four_gives_the_same_call() {
    // A call of torch.device("cpu"), as protocols 2 and 4 write it.
    for bytes in [
        &b"\x80\x02ctorch\ndevice\nq\x00X\x03\x00\x00\x00cpuq\x01\x85q\x02Rq\x03."[..],
        &b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05torch\x94\x8c\x06device\x94\
           \x93\x94\x8c\x03cpu\x94\x85\x94R\x94."[..],
    ] {
        let pickle = Pickle::parse(bytes).unwrap();
        let (name, arguments) = pickle.call(pickle.root()).unwrap();
        assert_eq!(name, "torch.device");
        assert_eq!(pickle.text(arguments[0]), Some("cpu"));
    }
}

#[test]
fn long_integers_keep_their_sign() {
    for (bytes, value) in [
        (&b"\x8a\x00."[..], Some(0)),
        (&b"\x8a\x01\xff."[..], Some(-1)),
        (&b"\x8a\x05\x00\x00\x00\x00\x01."[..], Some(1 << 32)),
        (&b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01."[..], None),
    ] {
        let pickle = Pickle::parse(bytes).unwrap();
        assert_eq!(pickle.int(pickle.root()), value);
    }
}

#[test]
fn what_is_deeply_nested_or_contains_itself_is_harmless() {
    let mut nested = vec![b')'];
    nested.extend(std::iter::repeat_n(0x85, 1_000_000));
    nested.push(b'.');
    assert!(Pickle::parse(&nested).is_ok());
    assert!(Pickle::parse(b"]q\x00h\x00a.").is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Pickle::parse(&bytes);
    }
}
