//! The part of `libz-ng-sys` that `flate2` uses, on zlib-rs (zlib in Rust) instead of zlib-ng (C,
//! built by cmake, which a fresh machine lacks). `pingora-core` switches on `flate2/zlib-ng`, so
//! the only way out is a crate of the same name, put in by `[patch.crates-io]`.
//!
//! Everything is re-exported as it is but [`z_stream`], because `flate2` builds one field by field
//! and names the allocator functions without `Option`. Invariant: its layout is zlib-rs's own,
//! which the assertions below check at compile time.

#![allow(
    non_camel_case_types,
    non_snake_case,
    reason = "these are zlib's own names"
)]

use std::ffi::{c_char, c_int, c_uchar, c_uint, c_ulong, c_void};
use std::mem::{align_of, offset_of, size_of};

use libz_rs_sys as zlib;

pub use zlib::{
    Z_BLOCK, Z_BUF_ERROR, Z_DATA_ERROR, Z_DEFAULT_STRATEGY, Z_DEFLATED, Z_FINISH, Z_FULL_FLUSH,
    Z_MEM_ERROR, Z_NEED_DICT, Z_NO_FLUSH, Z_OK, Z_PARTIAL_FLUSH, Z_STREAM_END, Z_STREAM_ERROR,
    Z_SYNC_FLUSH, internal_state, uInt, zlibVersion,
};

/// zlib's stream, with allocator functions that are always there.
#[repr(C)]
pub struct z_stream {
    pub next_in: *mut c_uchar,
    pub avail_in: c_uint,
    pub total_in: c_ulong,
    pub next_out: *mut c_uchar,
    pub avail_out: c_uint,
    pub total_out: c_ulong,
    pub msg: *mut c_char,
    pub state: *mut internal_state,
    pub zalloc: unsafe extern "C" fn(*mut c_void, c_uint, c_uint) -> *mut c_void,
    pub zfree: unsafe extern "C" fn(*mut c_void, *mut c_void),
    pub opaque: *mut c_void,
    pub data_type: c_int,
    pub adler: c_ulong,
    pub reserved: c_ulong,
}

const _: () = {
    assert!(size_of::<z_stream>() == size_of::<zlib::z_stream>());
    assert!(align_of::<z_stream>() == align_of::<zlib::z_stream>());
    assert!(offset_of!(z_stream, next_in) == offset_of!(zlib::z_stream, next_in));
    assert!(offset_of!(z_stream, next_out) == offset_of!(zlib::z_stream, next_out));
    assert!(offset_of!(z_stream, msg) == offset_of!(zlib::z_stream, msg));
    assert!(offset_of!(z_stream, state) == offset_of!(zlib::z_stream, state));
    assert!(offset_of!(z_stream, zalloc) == offset_of!(zlib::z_stream, zalloc));
    assert!(offset_of!(z_stream, zfree) == offset_of!(zlib::z_stream, zfree));
    assert!(offset_of!(z_stream, opaque) == offset_of!(zlib::z_stream, opaque));
    assert!(offset_of!(z_stream, adler) == offset_of!(zlib::z_stream, adler));
};

/// Declares functions that hand their stream on to zlib-rs unchanged.
macro_rules! forward {
    ($($name:ident($($arg:ident: $kind:ty),*);)*) => {$(
        /// zlib's function of this name.
        ///
        /// # Safety
        /// As in zlib: `stream` points to a stream that the matching `Init` call set up (or, for
        /// the `Init` calls, one with valid allocator functions), and the buffers that it or the
        /// other arguments name are valid for the lengths given.
        pub unsafe extern "C" fn $name(stream: *mut z_stream $(, $arg: $kind)*) -> c_int {
            // SAFETY: 1. `z_stream` has zlib-rs's layout (asserted above), and a plain function
            // pointer is the `Some` of zlib-rs's `Option`, so the cast changes no value.
            // 2. All else that zlib-rs demands is what this function demands of its caller.
            unsafe { zlib::$name(stream.cast::<zlib::z_stream>() $(, $arg)*) }
        }
    )*};
}

forward! {
    deflate(flush: c_int);
    deflateEnd();
    deflateReset();
    deflateParams(level: c_int, strategy: c_int);
    deflateSetDictionary(dictionary: *const c_uchar, length: c_uint);
    deflateInit2_(level: c_int, method: c_int, window_bits: c_int, memory_level: c_int,
        strategy: c_int, version: *const c_char, stream_size: c_int);
    inflate(flush: c_int);
    inflateEnd();
    inflateReset();
    inflateReset2(window_bits: c_int);
    inflateSetDictionary(dictionary: *const c_uchar, length: c_uint);
    inflateInit2_(window_bits: c_int, version: *const c_char, stream_size: c_int);
}
