//! Parameters with their types named by us: statements are then unnamed and need no state on the server's connection, so that
//! they work through PgBouncer in transaction mode.

use tokio_postgres::types::{ToSql, Type};

/// A value and its type.
pub type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// What can be a parameter.
pub trait Typed: ToSql + Sync {
    const TYPE: Type;
}

/// A parameter from a value.
pub fn p<T: Typed>(value: &T) -> Param<'_> {
    (value, T::TYPE)
}

macro_rules! typed {
    ($($rust:ty => $single:ident, $array:ident;)+) => {$(
        impl Typed for $rust { const TYPE: Type = Type::$single; }
        impl Typed for Option<$rust> { const TYPE: Type = Type::$single; }
        impl Typed for Vec<$rust> { const TYPE: Type = Type::$array; }
        impl Typed for Vec<Option<$rust>> { const TYPE: Type = Type::$array; }
    )+};
}

typed! {
    i16 => INT2, INT2_ARRAY;
    i32 => INT4, INT4_ARRAY;
    i64 => INT8, INT8_ARRAY;
    bool => BOOL, BOOL_ARRAY;
    String => TEXT, TEXT_ARRAY;
    &str => TEXT, TEXT_ARRAY;
    &String => TEXT, TEXT_ARRAY;
    Vec<u8> => BYTEA, BYTEA_ARRAY;
    &[u8] => BYTEA, BYTEA_ARRAY;
}
