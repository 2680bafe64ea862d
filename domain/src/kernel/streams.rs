//! `streams!` makes the sum types over all streams, so that a new stream is one file and one line.

/// For each `Type => module`: a variant in [`StreamKind`](crate::StreamKind), [`Fact`](crate::Fact),
/// [`AnyCommand`](crate::AnyCommand) and [`AnyState`](crate::AnyState), and the functions that pick the stream's own.
#[macro_export]
macro_rules! streams {
    ($($stream:ident => $module:ident),+ $(,)?) => {
        /// The types of streams there are.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum StreamKind { $($stream),+ }

        impl StreamKind {
            pub const ALL: &'static [StreamKind] = &[$(StreamKind::$stream),+];

            /// The name in URLs, event types and subjects.
            pub fn name(self) -> &'static str {
                match self { $(StreamKind::$stream => <$module::$stream as $crate::Stream>::NAME),+ }
            }

            /// `None` when there is no stream of that name.
            pub fn parse(name: &str) -> Option<StreamKind> {
                StreamKind::ALL.iter().copied().find(|kind| kind.name() == name)
            }

            /// JSON schema of the stream's commands, externally tagged as serde derives them.
            pub fn command_schema(self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                match self { $(StreamKind::$stream => generator.subschema_for::<<$module::$stream as $crate::Stream>::Command>()),+ }
            }

            /// JSON schema of the stream's events, externally tagged as serde derives them.
            pub fn event_schema(self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                match self { $(StreamKind::$stream => generator.subschema_for::<<$module::$stream as $crate::Stream>::Event>()),+ }
            }

            /// JSON schema of the stream's state; its hash tells whether stored states still fit.
            pub fn state_schema(self) -> schemars::Schema {
                match self { $(StreamKind::$stream => schemars::schema_for!(<$module::$stream as $crate::Stream>::State)),+ }
            }

            /// The names of the stream's events.
            pub fn event_names(self) -> &'static [&'static str] {
                match self { $(StreamKind::$stream => $crate::variants::<<$module::$stream as $crate::Stream>::Event>()),+ }
            }

            /// The name of the command that begins a stream.
            pub fn begins(self) -> &'static str {
                match self { $(StreamKind::$stream => <$module::$stream as $crate::Stream>::BEGINS),+ }
            }

            /// The names of the stream's commands.
            pub fn command_names(self) -> &'static [&'static str] {
                match self { $(StreamKind::$stream => $crate::variants::<<$module::$stream as $crate::Stream>::Command>()),+ }
            }
        }

        /// An event of any stream.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Fact { $($stream($module::Event)),+ }

        impl Fact {
            pub fn kind(&self) -> StreamKind {
                match self { $(Fact::$stream(_) => StreamKind::$stream),+ }
            }

            /// The event's type and its JSON body, as they are stored.
            pub fn encode(&self) -> ($crate::EventType, Vec<u8>) {
                match self { $(Fact::$stream(event) => $crate::encode_event::<$module::$stream>(event)),+ }
            }

            /// # Errors
            /// An unknown type or version, or a damaged body.
            pub fn decode(kind: &$crate::EventType, body: &[u8]) -> Result<Fact, $crate::UnreadableEvent> {
                match StreamKind::parse(&kind.stream) {
                    $(Some(StreamKind::$stream) => Ok(Fact::$stream($crate::decode_event::<$module::$stream>(kind, body)?)),)+
                    None => Err($crate::UnreadableEvent::UnknownType(kind.clone())),
                }
            }
        }

        $(impl From<$module::Event> for Fact {
            fn from(event: $module::Event) -> Fact {
                Fact::$stream(event)
            }
        })+

        /// A command to any stream.
        #[derive(Debug, Clone)]
        pub enum AnyCommand { $($stream($module::Command)),+ }

        impl AnyCommand {
            /// Reads `{"type": …}` as a command of `kind`.
            ///
            /// # Errors
            /// The field at fault and what is wrong with it.
            pub fn from_json(kind: StreamKind, json: serde_json::Value) -> Result<AnyCommand, $crate::CommandError> {
                match kind { $(StreamKind::$stream => $crate::command_from_json(json).map(AnyCommand::$stream)),+ }
            }

            pub fn to_json(&self) -> serde_json::Value {
                match self { $(AnyCommand::$stream(command) => $crate::command_to_json(command)),+ }
            }

            /// The command in one form of its own, for hashing: fields in the order in which they are declared.
            ///
            /// # Errors
            /// Those of the writer.
            pub fn write_canonical(&self, to: impl std::io::Write) -> Result<(), serde_json::Error> {
                match self { $(AnyCommand::$stream(command) => serde_json::to_writer(to, command)),+ }
            }

            pub fn kind(&self) -> StreamKind {
                match self { $(AnyCommand::$stream(_) => StreamKind::$stream),+ }
            }

            pub fn home(&self) -> $crate::Home {
                match self { $(AnyCommand::$stream(command) => <$module::$stream as $crate::Stream>::home(command)),+ }
            }

            pub fn former(&self) -> Option<uuid::Uuid> {
                match self { $(AnyCommand::$stream(command) => <$module::$stream as $crate::Stream>::former(command)),+ }
            }

            pub fn companions(&self) -> Vec<$crate::StreamRef> {
                match self { $(AnyCommand::$stream(command) => <$module::$stream as $crate::Stream>::companions(command)),+ }
            }
        }

        $(impl From<$module::Command> for AnyCommand {
            fn from(command: $module::Command) -> AnyCommand {
                AnyCommand::$stream(command)
            }
        })+

        /// The state of any stream.
        #[derive(Debug, Clone, PartialEq)]
        pub enum AnyState { $($stream(<$module::$stream as $crate::Stream>::State)),+ }

        impl AnyState {
            /// The state before the first event.
            pub fn initial(kind: StreamKind) -> AnyState {
                match kind { $(StreamKind::$stream => AnyState::$stream(Default::default())),+ }
            }

            pub fn kind(&self) -> StreamKind {
                match self { $(AnyState::$stream(_) => StreamKind::$stream),+ }
            }

            /// Decides a command of the same stream type.
            ///
            /// # Errors
            /// The stream's rejection, boxed.
            ///
            /// # Panics
            /// When the command belongs to another type of stream.
            pub fn decide(&self, command: AnyCommand, at: &$crate::Moment<'_>) -> Result<Vec<Fact>, Box<dyn std::error::Error + Send + Sync>> {
                match (self, command) {
                    $((AnyState::$stream(state), AnyCommand::$stream(command)) => {
                        let events = <$module::$stream as $crate::Stream>::decide(state, command, at)?;
                        Ok(events.into_iter().map(Fact::$stream).collect())
                    })+
                    (state, command) => panic!("a {:?} command for a {:?} stream", command.kind(), state.kind()),
                }
            }

            /// What a command of the same stream type means to a stream that is begun, for a sender who says "update or create".
            ///
            /// # Panics
            /// When the command belongs to another type of stream.
            pub fn upsert(&self, command: AnyCommand, at: &$crate::Moment<'_>) -> Vec<AnyCommand> {
                match (self, command) {
                    $((AnyState::$stream(state), AnyCommand::$stream(command)) => {
                        let commands = <$module::$stream as $crate::Stream>::upsert(state, command, at);
                        commands.into_iter().map(AnyCommand::$stream).collect()
                    })+
                    (state, command) => panic!("a {:?} command for a {:?} stream", command.kind(), state.kind()),
                }
            }

            /// The state after `fact`, which is true in the world since `at`.
            ///
            /// # Panics
            /// When the fact belongs to another type of stream.
            pub fn evolve(self, fact: &Fact, at: jiff::Timestamp) -> AnyState {
                match (self, fact) {
                    $((AnyState::$stream(state), Fact::$stream(event)) =>
                        AnyState::$stream(<$module::$stream as $crate::Stream>::evolve(state, event, at)),)+
                    (state, fact) => panic!("a {:?} event in a {:?} stream", fact.kind(), state.kind()),
                }
            }

            pub fn customer(&self) -> Option<uuid::Uuid> {
                match self { $(AnyState::$stream(state) => <$module::$stream as $crate::Stream>::customer(state)),+ }
            }

            /// The stream's own state type, for `Moment::state_of`.
            pub fn as_any(&self) -> &dyn std::any::Any {
                match self { $(AnyState::$stream(state) => state),+ }
            }

            pub fn to_json(&self) -> Vec<u8> {
                match self { $(AnyState::$stream(state) => serde_json::to_vec(state)),+ }.expect("a state is plain data")
            }

            /// # Errors
            /// When the bytes are no state of `kind`.
            pub fn from_json(kind: StreamKind, json: &[u8]) -> Result<AnyState, serde_json::Error> {
                match kind { $(StreamKind::$stream => serde_json::from_slice(json).map(AnyState::$stream)),+ }
            }
        }
    };
}
