// Item response theory: the two-parameter logistic model of persons answering items.
data {
  int<lower=1> I;                          // persons
  int<lower=1> J;                          // items
  int<lower=1> N;                          // answers
  array[N] int<lower=1, upper=I> person;
  array[N] int<lower=1, upper=J> item;
  array[N] int<lower=0, upper=1> y;        // whether the answer is right
}
parameters {
  vector[I] ability;
  vector[J] difficulty;
  vector<lower=0>[J] discrimination;
}
model {
  ability ~ std_normal();                  // fixes location and scale
  difficulty ~ normal(0, 1.5);
  discrimination ~ lognormal(0, 0.5);      // fixes the sign
  y ~ bernoulli_logit(discrimination[item] .* (ability[person] - difficulty[item]));
}
