import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import jakarta.persistence.EntityManager;
import java.sql.Types;
import java.util.Properties;
import org.axonframework.common.transaction.Transaction;
import org.axonframework.common.transaction.TransactionManager;
import org.axonframework.config.Configuration;
import org.axonframework.config.DefaultConfigurer;
import org.axonframework.eventsourcing.eventstore.jpa.DomainEventEntry;
import org.axonframework.eventsourcing.eventstore.jpa.JpaEventStorageEngine;
import org.axonframework.eventsourcing.eventstore.jpa.SnapshotEventEntry;
import org.axonframework.serialization.json.JacksonSerializer;
import org.hibernate.SessionFactory;
import org.hibernate.boot.model.TypeContributions;
import org.hibernate.dialect.DatabaseVersion;
import org.hibernate.dialect.PostgreSQLDialect;
import org.hibernate.service.ServiceRegistry;
import org.hibernate.type.SqlTypes;
import org.hibernate.type.descriptor.jdbc.BinaryJdbcType;

/** The framework over its JPA event store: Hibernate, a connection pool, Jackson, as its documentation advises for PostgreSQL. */
final class Store implements TransactionManager, AutoCloseable {

  /** Payloads as bytea: by default they would become large objects. */
  public static final class ByteaDialect extends PostgreSQLDialect {
    public ByteaDialect() {
      super(DatabaseVersion.make(15));
    }

    @Override
    protected String columnType(int code) {
      return code == SqlTypes.BLOB ? "bytea" : super.columnType(code);
    }

    @Override
    protected String castType(int code) {
      return code == SqlTypes.BLOB ? "bytea" : super.castType(code);
    }

    @Override
    public void contributeTypes(TypeContributions types, ServiceRegistry services) {
      super.contributeTypes(types, services);
      types.getTypeConfiguration().getJdbcTypeRegistry().addDescriptor(Types.BLOB, BinaryJdbcType.INSTANCE);
    }
  }

  private final ThreadLocal<EntityManager> open = new ThreadLocal<>();
  private final HikariDataSource pool;
  private final SessionFactory sessions;
  final Configuration framework;

  Store(String url, int poolSize) {
    HikariConfig settings = new HikariConfig();
    settings.setJdbcUrl(url);
    settings.setUsername("crm");
    settings.setMaximumPoolSize(poolSize);
    settings.setAutoCommit(false);
    settings.setConnectionTimeout(60_000);
    pool = new HikariDataSource(settings);

    Properties properties = new Properties();
    properties.put("hibernate.connection.datasource", pool);
    properties.put("hibernate.connection.provider_disables_autocommit", "true");
    properties.put("hibernate.dialect", ByteaDialect.class.getName());
    properties.put("hibernate.hbm2ddl.auto", "update");
    properties.put("hibernate.jdbc.batch_size", "50");
    properties.put("hibernate.order_inserts", "true");
    org.hibernate.cfg.Configuration hibernate = new org.hibernate.cfg.Configuration();
    hibernate.setProperties(properties);
    hibernate.addAnnotatedClass(DomainEventEntry.class).addAnnotatedClass(SnapshotEventEntry.class);
    sessions = hibernate.buildSessionFactory();

    ObjectMapper mapper = new ObjectMapper().setPropertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE);
    JacksonSerializer serializer = JacksonSerializer.builder().objectMapper(mapper).build();
    framework =
        DefaultConfigurer.defaultConfiguration(false)
            .configureTransactionManager(c -> this)
            .configureSerializer(c -> serializer)
            .configureEmbeddedEventStore(
                c ->
                    JpaEventStorageEngine.builder()
                        .snapshotSerializer(serializer)
                        .eventSerializer(serializer)
                        .entityManagerProvider(open::get)
                        .transactionManager(this)
                        .build())
            .configureAggregate(Receipt.class)
            .buildConfiguration();
    framework.start();
  }

  @Override
  public Transaction startTransaction() {
    if (open.get() != null) {
      return new Transaction() {
        @Override
        public void commit() {}

        @Override
        public void rollback() {}
      };
    }
    EntityManager manager = sessions.createEntityManager();
    open.set(manager);
    manager.getTransaction().begin();
    return new Transaction() {
      @Override
      public void commit() {
        try {
          manager.getTransaction().commit();
        } finally {
          end();
        }
      }

      @Override
      public void rollback() {
        try {
          manager.getTransaction().rollback();
        } finally {
          end();
        }
      }

      private void end() {
        open.remove();
        manager.close();
      }
    };
  }

  long events() {
    try (EntityManager manager = sessions.createEntityManager()) {
      return manager.createQuery("select count(e) from DomainEventEntry e", Long.class).getSingleResult();
    }
  }

  @Override
  public void close() {
    framework.shutdown();
    sessions.close();
    pool.close();
  }
}
