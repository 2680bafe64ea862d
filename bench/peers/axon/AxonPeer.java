import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import org.HdrHistogram.Histogram;
import org.axonframework.commandhandling.gateway.CommandGateway;

/** Peer P4: closed-loop clients of Axon Framework, a thread each. Speaks the protocol of bench/peers/protocol. */
public final class AxonPeer {

  private enum Phase {
    WARMING,
    MEASURING,
    OVER
  }

  private static final ObjectMapper JSON = new ObjectMapper();
  private static final AtomicLong NEXT = new AtomicLong(1);
  private static volatile Phase phase = Phase.OVER;

  public static void main(String[] arguments) throws Exception {
    String url = arguments[0];
    Store store = null;
    int poolSize = 0;
    say(JSON.getNodeFactory().textNode("ready"));
    BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
    for (String line = input.readLine(); line != null; line = input.readLine()) {
      JsonNode word = JSON.readTree(line);
      if (word.has("count")) {
        say(JSON.createObjectNode().put("stored", store == null ? 0 : store.events()));
        continue;
      }
      JsonNode run = word.get("run");
      int wanted = run.path("pool").asInt(16);
      if (store == null || wanted != poolSize) {
        if (store != null) {
          store.close();
        }
        store = new Store(url, wanted);
        poolSize = wanted;
      }
      say(closedLoop(store.framework.commandGateway(), run));
    }
    System.exit(0);
  }

  private static JsonNode closedLoop(CommandGateway gateway, JsonNode run) throws Exception {
    int clients = run.get("clients").asInt();
    phase = Phase.WARMING;
    AtomicLong acked = new AtomicLong();
    List<Future<Histogram>> running = new ArrayList<>();
    try (Clients threads = new Clients(clients)) {
      for (int client = 0; client < clients; client++) {
        running.add(threads.pool.submit(client(gateway, acked)));
      }
      Thread.sleep(run.get("warm_up_ms").asLong());
      phase = Phase.MEASURING;
      say(JSON.getNodeFactory().textNode("started"));
      Thread.sleep(run.get("measure_ms").asLong());
      phase = Phase.OVER;
      Histogram all = histogram();
      for (Future<Histogram> client : running) {
        all.add(client.get());
      }
      ObjectNode done = JSON.createObjectNode();
      done.put("ops", all.getTotalCount()).put("acked", acked.get());
      ArrayNode latencies = done.putArray("latencies");
      all.recordedValues()
          .forEach(value -> latencies.addArray().add(value.getValueIteratedTo()).add(value.getCountAtValueIteratedTo()));
      ObjectNode answer = JSON.createObjectNode();
      answer.set("done", done);
      return answer;
    }
  }

  private static Callable<Histogram> client(CommandGateway gateway, AtomicLong acked) {
    return () -> {
      Histogram latencies = histogram();
      while (phase != Phase.OVER) {
        long started = System.nanoTime();
        gateway.sendAndWait(Receipt.numbered(NEXT.getAndIncrement()));
        acked.incrementAndGet();
        if (phase == Phase.MEASURING) {
          latencies.recordValue(Math.max(1, (System.nanoTime() - started) / 1_000));
        }
      }
      return latencies;
    };
  }

  private static Histogram histogram() {
    return new Histogram(60_000_000, 3);
  }

  private static void say(JsonNode word) {
    System.out.println(word);
    System.out.flush();
  }

  /** Threads that end with the run. */
  private record Clients(ExecutorService pool) implements AutoCloseable {
    Clients(int count) {
      this(Executors.newFixedThreadPool(count));
    }

    @Override
    public void close() {
      pool.shutdownNow();
    }
  }
}
