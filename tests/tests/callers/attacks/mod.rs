//! The attacks. Each begins when honest clients are served well, goes on until they were served for a while beside it,
//! and looks at what it has got itself. It may be made again on the same stage.

mod door;
mod inside;
mod operator;

pub use door::*;
pub use inside::*;
pub use operator::*;
